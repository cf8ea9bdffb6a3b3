from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from distclust.engines.tree import Partials
from distclust.testing.engine_suite import reference_tree
from distclust.testing.steps import FloatSum, join

finite = st.floats(-1e12, 1e12)


@st.composite
def groupings(draw: st.DrawFn, leaves: st.SearchStrategy[float] = finite):
    """Leaf values, a random cut of them into contiguous tasks, a random order of the tasks."""
    values = draw(st.lists(leaves, min_size=1, max_size=70))
    cuts = sorted(draw(st.sets(st.integers(1, len(values) - 1)))) if len(values) > 1 else []
    tasks = list(pairwise([0, *cuts, len(values)]))
    return values, draw(st.permutations(tasks))


@given(groupings())
def test_any_grouping_gives_the_bits_of_the_fixed_tree(case):
    values, tasks = case
    leaves = [FloatSum(value, str(i)) for i, value in enumerate(values)]
    driver = Partials(len(leaves), FloatSum.merge)
    for start, stop in tasks:
        worker = Partials(len(leaves), FloatSum.merge)
        for i in range(start, stop):
            worker.add(i, i + 1, leaves[i])
        for part in worker.parts():
            driver.add(*part)
    (total,) = driver.parts()
    assert total.value == reference_tree(leaves)


@given(groupings())
def test_a_task_returns_few_subtrees(case):
    values, tasks = case
    for start, stop in tasks:
        worker = Partials(len(values), FloatSum.merge)
        for i in range(start, stop):
            worker.add(i, i + 1, FloatSum(values[i], ""))
        assert len(worker.parts()) <= max(1, 2 * (stop - start).bit_length())


@given(groupings())
def test_exact_partials_of_a_task_become_one_and_keep_their_order(case):
    values, tasks = case
    driver = Partials(len(values), join)
    for start, stop in tasks:
        worker = Partials(len(values), join)
        for i in range(start, stop):
            worker.add(i, i + 1, [i])
        (part,) = worker.parts()
        driver.add(*part)
    (total,) = driver.parts()
    assert total.value == list(range(len(values)))


@given(st.permutations(range(23)))
def test_leaves_in_any_order_give_the_fixed_tree(order):
    leaves = [FloatSum(0.1 * i, str(i)) for i in range(23)]
    partials = Partials(23, FloatSum.merge)
    for i in order:
        partials.add(i, i + 1, leaves[i])
    assert [part.value for part in partials.parts()] == [reference_tree(leaves)]
