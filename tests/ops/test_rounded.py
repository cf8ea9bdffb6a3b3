"""Rounded rows are kept beside the block: a sample shares them with the whole, and none of it is a result."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distclust.data.block import Block
from distclust.data.cache import node_cache
from distclust.data.state import FileState, MemoryState, NoState, RowState
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import StepContext
from distclust.engines.sampled import ALL_ROWS, OnSample, PrefixState, SampleState
from distclust.kernels._machine import machine
from distclust.kernels.heads import HeadAxes
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.near import assign_listed, list_near, listed_centers, nearest_roughly
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.kernels.rounded import RoundedRows, round_rows
from distclust.kernels.screened import screen_centers
from distclust.ops import rounded
from distclust.ops.bounds import BoundedPass
from distclust.ops.centers import CLOSE, CenterSet
from distclust.ops.near import NearCenters
from distclust.ops.rounded import KINDS, ROWS, keep_rounded, known_rounded
from distclust.ops.together import NamedState
from distclust.ops.validation import OnNear
from tests.algorithms.rows import prepared
from tests.kernels.test_screened import turned

N, WIDTH, AXES = 300, 80, 16
HALF = 1 << 63
"""The limit of hashes of half the rows."""


@contextmanager
def opened(x: np.ndarray) -> Iterator[Block]:
    """Open float32 rows as the block of the only partition."""
    with (
        LocalEngine(1) as engine,
        prepared(engine, x, [len(x)]) as data,
        node_cache(engine.options.node).open(data.pinned.refs[0], data.view) as block,
    ):
        assert isinstance(block, Block)
        yield block


@pytest.fixture(scope="module")
def block() -> Iterator[Block]:
    with opened(np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)) as block:
        yield block


@pytest.fixture(params=["memory", "file"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> RowState:
    return FileState(tmp_path / "state") if request.param == "file" else MemoryState()


@pytest.fixture(params=[None, AXES], ids=["columns", "axes"])
def head(request: pytest.FixtureRequest) -> HeadAxes | None:
    return None if request.param is None else turned(np.random.default_rng(1), WIDTH, request.param)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows have been rounded for a block, call by call."""
    seen: list[int] = []

    def counted(x: np.ndarray, head: HeadAxes | None = None, known: RoundedRows | None = None) -> RoundedRows:
        seen.append(len(x) - (0 if known is None else len(known.values)))
        return round_rows(x, head, known)

    monkeypatch.setattr(rounded, "round_rows", counted)
    return seen


@dataclass(frozen=True)
class Keep:
    """Keep the rows of a block rounded; a step, so that it may run on a sample."""

    head: HeadAxes | None

    def __call__(self, block: Block, value: Any, context: StepContext) -> RoundedRows:
        return keep_rounded(block, self.head, "axes", context)


def context_of(state: RowState) -> StepContext:
    return StepContext("test", 0, 0, state)


def same(found: RoundedRows, expected: RoundedRows) -> bool:
    return [(part.shape, part.tobytes()) for part in found] == [(part.shape, part.tobytes()) for part in expected]


def stored(state: RowState, tag: str = "axes") -> RoundedRows | None:
    values, floats = (state.get(f"{kind}-{tag}", ROWS) for kind in KINDS)
    return None if values is None or floats is None else RoundedRows(values, floats)


def poison(state: RowState, rows: RoundedRows, tag: str = "axes") -> RoundedRows:
    """Store other bits in place of rounded rows."""
    wrong = RoundedRows(rows.values ^ 1, rows.floats + 1)
    give(state, wrong, tag)
    return wrong


def give(state: RowState, rows: RoundedRows, tag: str = "axes") -> None:
    for kind, array in zip(KINDS, (rows.values, rows.floats), strict=True):
        state.give(f"{kind}-{tag}", ROWS, array)


class TestKept:
    def test_rows_are_rounded_once(self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]) -> None:
        context, expected = context_of(state), round_rows(block.x, head)
        assert known_rounded(block, head, "axes", context) is None
        for _ in range(3):
            assert same(keep_rounded(block, head, "axes", context), expected)
            known = known_rounded(block, head, "axes", context)
            assert known is not None
            assert same(known, expected)
        assert made == [N]

    def test_what_is_kept_is_what_comes_back(self, block: Block, state: RowState, head: HeadAxes | None) -> None:
        context = context_of(state)
        wrong = poison(state, keep_rounded(block, head, "axes", context))
        assert same(keep_rounded(block, head, "axes", context), wrong)

    def test_other_axes_are_another_matter(self, block: Block, state: RowState, made: list[int]) -> None:
        context = context_of(state)
        first, second = (turned(np.random.default_rng(seed), WIDTH, AXES) for seed in (2, 3))
        assert same(keep_rounded(block, first, "first", context), round_rows(block.x, first))
        assert known_rounded(block, second, "second", context) is None
        assert same(keep_rounded(block, second, "second", context), round_rows(block.x, second))
        assert made == [N, N]

    def test_without_a_place_rows_are_rounded_each_time(self, block: Block, made: list[int]) -> None:
        for _ in range(2):
            assert same(keep_rounded(block, None, "axes", context_of(NoState())), round_rows(block.x))
        assert made == [N, N]

    def test_damaged_or_foreign_arrays_are_ignored(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context, expected = context_of(state), round_rows(block.x, head)
        values, floats = expected
        for wrong in (
            RoundedRows(values.astype(np.int16), floats),
            RoundedRows(values.view(np.uint8), floats),
            RoundedRows(values, floats.astype(np.float64)),
            RoundedRows(values[1:], floats),
            RoundedRows(values, floats[1:]),
            RoundedRows(np.zeros((N, values.shape[1] + 64), np.int8), floats),
            RoundedRows(np.zeros((N, values.shape[1] - 1), np.int8), floats),
            RoundedRows(values[:, 0].copy(), floats),
            RoundedRows(values, floats[:, 1:].copy()),
            RoundedRows(values, floats[:, 0].copy()),
            RoundedRows(values[None], floats[None]),
            RoundedRows(values[:, :, None], floats[:, :, None]),
        ):
            made.clear()
            give(state, wrong)
            assert known_rounded(block, head, "axes", context) is None
            assert same(keep_rounded(block, head, "axes", context), expected)
            assert made == [N]

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_array_without_the_other_is_ignored(
        self, block: Block, state: RowState, made: list[int], kind: str
    ) -> None:
        context = context_of(state)
        keep_rounded(block, None, "axes", context)
        assert state.take(f"{kind}-axes", ROWS) is not None
        assert known_rounded(block, None, "axes", context) is None
        assert same(keep_rounded(block, None, "axes", context), round_rows(block.x))
        assert made == [N, N]

    def test_a_damaged_file_is_ignored(self, block: Block, tmp_path: Path, made: list[int]) -> None:
        context = context_of(FileState(tmp_path))
        keep_rounded(block, None, "axes", context)
        for path in tmp_path.rglob("*.npy"):
            whole = path.read_bytes()
            path.write_bytes(whole[:-1])
            assert same(keep_rounded(block, None, "axes", context), round_rows(block.x))
        assert made == [N, N, N]


def test_rows_that_are_not_the_first_share_nothing(block: Block, state: RowState) -> None:
    step, limit = Keep(None), float(np.quantile(np.abs(block.x).max(axis=1), 0.8))
    near = np.abs(block.x).max(axis=1) <= limit
    assert 0 < near.sum() < N
    for _ in range(2):
        found = OnNear(step, limit)(block, None, context_of(state))
        assert same(found, round_rows(np.ascontiguousarray(block.x[near])))
        assert same(step(block, None, context_of(state)), round_rows(block.x))


def test_algorithms_side_by_side_share_rounded_rows(block: Block, state: RowState, made: list[int]) -> None:
    for name in ("k8", "k9"):
        found = keep_rounded(block, None, "axes", context_of(NamedState(state, name)))
        assert same(found, round_rows(block.x))
    assert made == [N]


class TestSamples:
    def test_know_the_state_of_the_whole(self, state: RowState) -> None:
        sample = PrefixState(state, HALF)
        assert state.whole is state
        assert sample.whole is state
        assert PrefixState(sample, HALF // 2).whole is state
        chosen = SampleState(state, HALF)
        assert chosen.whole is chosen, "some rows of a block are not its first ones"
        assert NamedState(state, "k8").whole is state, "what is known of a row serves all algorithms"
        sample.put("labels", "1", np.zeros(3))
        assert sample.whole.get("labels", "1") is None, "what is a sample's own stays so"
        sample.whole.put("labels", "1", np.ones(5))
        assert sample.get("labels", "1") is not None
        np.testing.assert_array_equal(sample.get("labels", "1"), np.zeros(3))

    def test_are_served_by_the_whole(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context = context_of(state)
        expected = keep_rounded(block, head, "axes", context)
        size = block.prefix(HALF).n
        assert 0 < size < N
        assert same(OnSample(Keep(head), HALF)(block, None, context), expected.first(size))
        wrong = poison(state, expected)
        assert same(OnSample(Keep(head), HALF)(block, None, context), wrong.first(size))
        assert same(OnSample(Keep(head), ALL_ROWS)(block, None, context), wrong)
        assert made == [N]
        kept = stored(state)
        assert kept is not None
        assert same(kept, wrong), "a sample leaves what the whole has kept"

    def test_serve_the_whole(self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]) -> None:
        context, expected = context_of(state), round_rows(block.x, head)
        sizes = [block.prefix(limit).n for limit in (HALF // 2, HALF)]
        assert 0 < sizes[0] < sizes[1] < N
        assert same(OnSample(Keep(head), HALF // 2)(block, None, context), expected.first(sizes[0]))
        assert same(OnSample(Keep(head), HALF)(block, None, context), expected.first(sizes[1]))
        assert same(keep_rounded(block, head, "axes", context), expected)
        assert made == [sizes[0], sizes[1] - sizes[0], N - sizes[1]]

    def test_are_not_rounded_again_by_the_whole(self, block: Block, state: RowState, head: HeadAxes | None) -> None:
        context, expected = context_of(state), round_rows(block.x, head)
        sample = OnSample(Keep(head), HALF)(block, None, context)
        size = len(sample.values)
        wrong = poison(state, sample)
        found = keep_rounded(block, head, "axes", context)
        assert same(found.first(size), wrong)
        assert found.values[size:].tobytes() == expected.values[size:].tobytes()
        assert found.floats[size:].tobytes() == expected.floats[size:].tobytes()

    def test_of_no_rows_are_no_trouble(self, block: Block, state: RowState, made: list[int]) -> None:
        context = context_of(state)
        assert len(OnSample(Keep(None), 0)(block, None, context).values) == 0
        assert same(keep_rounded(block, None, "axes", context), round_rows(block.x))
        assert len(OnSample(Keep(None), 0)(block, None, context).values) == 0
        assert sum(made) == N


def some_centers(block: Block, k: int = 70, seed: int = 4) -> np.ndarray:
    return block.x[np.random.default_rng(seed).choice(block.n, k, replace=False)].copy()


FAST = machine().byte_products
"""Whether the screen is faster than the plain kernel here, so that nearest centres are found by it."""


class TestCenterSets:
    def test_travel_with_all_they_are(self, head: HeadAxes | None) -> None:
        rows = np.random.default_rng(5).normal(size=(70, WIDTH)).astype(np.float32)
        for again in (False, True):
            centers = CenterSet(rows, head, again=again)
            other = pickle.loads(pickle.dumps(centers))
            assert (other.again, other.tag, other.axes_tag) == (again, centers.tag, centers.axes_tag)
            assert other.rows.tobytes() == rows.tobytes()
        assert not CenterSet(rows).again

    def test_axes_are_told_apart(self) -> None:
        rows = np.zeros((1, WIDTH), np.float32)
        heads = [None, *(turned(np.random.default_rng(seed), WIDTH, AXES) for seed in (1, 2))]
        assert len({CenterSet(rows, head).axes_tag for head in heads}) == 3
        assert CenterSet(rows, heads[1]).axes_tag == CenterSet(rows + 1, heads[1], again=True).axes_tag

    def test_for_more_passes_keep_rounded_rows(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context = context_of(state)
        for seed in range(3):
            centers = CenterSet(some_centers(block, seed=seed), head, again=True)
            labels = centers.nearest(block, context)
            np.testing.assert_array_equal(labels, assign_nearest(block.x, centers.packed)[0])
        assert made == [N] * FAST
        kept = stored(state, centers.axes_tag)
        if FAST:
            assert kept is not None
            assert same(kept, round_rows(block.x, head))
        else:
            assert kept is None

    def test_for_one_pass_keep_nothing(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context, centers = context_of(state), CenterSet(some_centers(block), head)
        assert centers.rounded(block, context) is None
        np.testing.assert_array_equal(centers.nearest(block, context), assign_nearest(block.x, centers.packed)[0])
        NearCenters(centers, centers).labels(block, context)
        assert made == []
        assert stored(state, centers.axes_tag) is None

    def test_for_one_pass_use_what_is_there(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context, centers = context_of(state), CenterSet(some_centers(block), head)
        expected = keep_rounded(block, head, centers.axes_tag, context)
        found = centers.rounded(block, context)
        assert found is not None
        assert same(found, expected)
        other = round_rows(block.x[::-1].copy(), head)
        give(state, other, centers.axes_tag)
        found = centers.rounded(block, context)
        assert found is not None
        assert same(found, other)
        assert made == [N]

    def test_for_one_pass_leave_what_a_sample_has_kept(
        self, block: Block, state: RowState, head: HeadAxes | None, made: list[int]
    ) -> None:
        context, centers = context_of(state), CenterSet(some_centers(block), head)
        prefix = block.prefix(HALF)
        kept = keep_rounded(prefix, head, centers.axes_tag, context)
        assert centers.rounded(block, context) is None
        np.testing.assert_array_equal(centers.nearest(block, context), assign_nearest(block.x, centers.packed)[0])
        found = centers.rounded(prefix, context)
        assert found is not None
        assert same(found, kept)
        assert made == [prefix.n]
        again = stored(state, centers.axes_tag)
        assert again is not None
        assert same(again, kept)

    @pytest.mark.parametrize(("k", "width", "dtype"), [(70, 15, "float32"), (70, 48, "float64")])
    def test_that_cannot_be_rounded_leave_rows_as_they_are(
        self, k: int, width: int, dtype: Any, made: list[int]
    ) -> None:
        rows = np.random.default_rng(6).normal(size=(k, width)).astype(dtype)
        with opened(np.random.default_rng(7).normal(size=(50, width)).astype(np.float32)) as narrow:
            centers, context = CenterSet(rows, again=True), context_of(MemoryState())
            assert centers.listed is None
            assert centers.rounded(narrow, context) is None
            block = replace(narrow, x=narrow.x.astype(dtype))
            labels, sqdist = centers.roughly(block, context)
            np.testing.assert_array_equal(labels, assign_nearest(block.x, pack_centers(rows))[0])
            assert sqdist.tobytes() == row_sqdist(block.x, rows, labels).tobytes()
        assert made == []


def each_state(block: Block, head: HeadAxes | None, tmp_path: Path) -> dict[str, Callable[[], RowState]]:
    """Return states that have nothing, all or something of what is asked for, or cannot keep it."""
    tag = CenterSet(block.x[:1], head).axes_tag

    def with_rows(rows: Block) -> RowState:
        state = MemoryState()
        keep_rounded(rows, head, tag, context_of(state))
        return state

    return {
        "empty": MemoryState,
        "none": NoState,
        "file": lambda: FileState(tmp_path / "state"),
        "whole": lambda: with_rows(block),
        "sample": lambda: with_rows(block.prefix(HALF)),
    }


class TestResults:
    """Labels, distances and bounds do not depend on what is known of the rows."""

    @pytest.mark.parametrize("again", [False, True])
    def test_nearest_centres(self, block: Block, head: HeadAxes | None, tmp_path: Path, again: bool) -> None:
        rows = some_centers(block)
        expected = assign_nearest(block.x, pack_centers(rows))[0]
        for name, state in each_state(block, head, tmp_path).items():
            found = CenterSet(rows, head, again=again).nearest(block, context_of(state()))
            np.testing.assert_array_equal(found, expected, err_msg=name)

    def test_rough_distances(self, block: Block, head: HeadAxes | None, tmp_path: Path) -> None:
        rows = some_centers(block)
        found = screen_centers(rows, pack_centers(rows), head, anywhere=True)
        assert found is not None
        own, sqdist = nearest_roughly(block.x, found, listed_centers(found))
        exact = row_sqdist(block.x, rows, own)
        lengths = (block.x.astype(np.float64) ** 2).sum(axis=1)
        near = sqdist < CLOSE * lengths
        assert near.sum() >= 60 or head is not None, "centres are rows themselves"
        for name, state in each_state(block, head, tmp_path).items():
            labels, distance = CenterSet(rows, head, again=True).roughly(block, context_of(state()))
            assert labels.dtype == np.int32
            assert distance.dtype == np.float64
            np.testing.assert_array_equal(labels, own, err_msg=name)
            np.testing.assert_array_equal(distance[near], exact[near], err_msg=name)
            np.testing.assert_array_equal(distance[~near], sqdist[~near].astype(np.float64), err_msg=name)

    def test_rows_too_long_to_be_rounded_have_exact_distances(self, head: HeadAxes | None) -> None:
        rng = np.random.default_rng(8)
        x = rng.normal(size=(40, WIDTH)).astype(np.float32)
        x[:20] *= np.float32(1e16)
        with opened(x - x.mean(axis=0)) as block:
            rows = rng.normal(size=(10, WIDTH)).astype(np.float32)
            labels, sqdist = CenterSet(rows, head, again=True).roughly(block, context_of(MemoryState()))
            exact = row_sqdist(block.x, rows, labels)
            long = (block.x.astype(np.float64) ** 2).sum(axis=1) > 1e30
            assert long.sum() >= 20
            np.testing.assert_array_equal(sqdist[long], exact[long])

    def test_lists_and_their_labels(self, block: Block, head: HeadAxes | None, tmp_path: Path) -> None:
        anchor, rows = some_centers(block), some_centers(block, seed=9)
        parts = [screen_centers(some, pack_centers(some), head, anywhere=True) for some in (anchor, rows)]
        assert parts[0] is not None
        assert parts[1] is not None
        lists = list_near(block.x, parts[0].packed, parts[0])
        expected = assign_listed(round_rows(block.x, head), listed_centers(parts[1]), lists)
        for again in (False, True):
            for name, state in each_state(block, head, tmp_path / str(again)).items():
                context = context_of(state())
                rule = NearCenters(CenterSet(rows, head, again=again), CenterSet(anchor, head, again=again))
                np.testing.assert_array_equal(rule.labels(block, context), expected, err_msg=name)

    def test_bounds(self, block: Block, head: HeadAxes | None, tmp_path: Path) -> None:
        rows = some_centers(block)
        expected = assign_nearest(block.x, pack_centers(rows))[0]
        for again in (False, True):
            for name, state in each_state(block, head, tmp_path / str(again)).items():
                rule = BoundedPass(0.1, None, CenterSet(rows, head, again=again))
                labels = rule.labels(block, None, context_of(state()))
                np.testing.assert_array_equal(labels, expected, err_msg=name)


@pytest.mark.parametrize(("width", "scale"), [(15, 1.0), (WIDTH, 1e-17), (WIDTH, 1e15)])
def test_lists_of_centres_that_cannot_be_rounded_have_labels_by_plain_scores(width: int, scale: float) -> None:
    rng = np.random.default_rng(10)
    with opened((rng.normal(size=(5000, width)) * scale).astype(np.float32)) as block:
        centers, context = CenterSet(some_centers(block), again=True), context_of(MemoryState())
        assert centers.listed is None
        labels = NearCenters(centers, centers).labels(block, context)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, assign_nearest(block.x, centers.packed)[0])
