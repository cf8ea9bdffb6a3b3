"""Arrays that a kernel makes and hands on by address outlive their use: numba frees them after their last mention."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import distclust.kernels

SOURCES = sorted(Path(distclust.kernels.__file__).parent.glob("*.py"))
MAKERS = {"empty", "zeros", "ones", "full", "empty_like", "zeros_like"}


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            yield node
            yield from own_nodes(node)


def made_arrays(function: ast.FunctionDef) -> set[str]:
    """Return the names that hold arrays made in a function."""
    found = set()
    for node in own_nodes(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        for name, made in zip(target.elts, value.elts, strict=True) if both else [(target, value)]:
            called = made.func if isinstance(made, ast.Call) else None
            if isinstance(name, ast.Name) and isinstance(called, ast.Attribute) and called.attr in MAKERS:
                found.add(name.id)
    return found


def lost_arrays(source: str) -> list[str]:
    """Return the arrays that are mentioned for the last time where their address is taken."""
    lost = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        loads = [n for n in own_nodes(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        addresses = {
            argument
            for n in own_nodes(function)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "address"
            for argument in n.args
        }
        for name in made_arrays(function) & {a.id for a in addresses if isinstance(a, ast.Name)}:
            if all(node in addresses for node in loads if node.id == name):
                lost.append(f"{function.name}: {name}")
    return lost


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_kernel_works_on_the_address_of_an_array_that_is_gone(path: Path) -> None:
    assert lost_arrays(path.read_text()) == []


def test_a_lost_array_is_noticed() -> None:
    source = "a, b = np.empty(3), np.empty(3)\nat, there = address(a), address(b)\ng(at, there)\nb[0] = 1"
    assert lost_arrays("def f():\n" + textwrap.indent(source, "    ")) == ["f: a"]
