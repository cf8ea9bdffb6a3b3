"""The demonstration: what it gathers, how it names clusters, and a small one from start to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from typer.testing import Result

from distclust.cli.demo.documents import gather_documents, python_directories
from distclust.cli.demo.vectors import WIDTH, embed, telling_words
from tests.jobs.conftest import subprocess_environment

LONG = "a text of more than eight words of three letters, which makes this docstring long enough"


def test_docstrings_are_gathered_in_order_without_tests_and_repetitions(tmp_path: Path) -> None:
    package = tmp_path / "zoo"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(f'"""Zoo: {LONG}."""\n')
    (package / "ape.py").write_text(
        f'class Ape:\n    """Ape: {LONG}."""\n    def eat(self):\n        """Eat: {LONG}.\n\n        More."""\n'
        f'try:\n    def same():\n        """Zoo:   {LONG}."""\nexcept OSError:\n    pass\n'
        'def short():\n    """Too short."""\n'
    )
    (package / "broken.py").write_text("def (:\n")
    (package / "tests" / "more.py").write_text(f'"""Test: {LONG}."""\n')
    (tmp_path / "ant.py").write_text(f'"""Ant: {LONG}."""\nimport does_not_exist\n')
    (tmp_path / "test_ant.py").write_text(f'"""Hidden: {LONG}."""\n')
    found = gather_documents([tmp_path], 100)
    assert [document.name for document in found] == ["ant", "zoo", "zoo.ape:Ape", "zoo.ape:Ape.eat"]
    assert found[3].title == f"Eat: {LONG}."
    assert found[3].text.endswith("\n\nMore.")
    assert gather_documents([tmp_path], 2) == found[:2]


def test_every_python_has_documents() -> None:
    found = gather_documents(python_directories(), 50)
    assert len({document.text for document in found}) == 50


def test_vectors_are_unit_and_near_for_alike_texts() -> None:
    vectors = embed(["open the file and read it", "open the file and write it", "sum of array elements"])
    assert vectors.shape == (3, WIDTH)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_telling_words_set_clusters_apart() -> None:
    texts = ["socket opens", "socket closes", "socket waits", "array sums", "array sorts", "array grows"]
    words = telling_words(texts, np.array([0, 0, 0, 1, 1, 1], np.int32), 2, 1)
    assert words == [["socket"], ["array"]]


def test_demo_from_start_to_end(cli: Callable[..., Result], tmp_path: Path) -> None:
    command = ("demo", "-o", tmp_path / "demo", "-k", 6, "--docs", 300)
    result = cli(*command)
    assert result.exit_code == 0, result.output
    assert sum(line.startswith("cluster ") for line in result.stdout.splitlines()) == 6
    assert str(tmp_path / "demo" / "run") in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()][:3] == ["gather", "embed", "profile"]
    documents = pq.read_table(tmp_path / "demo" / "documents.parquet")
    assert documents.column_names == ["id", "name", "text", "embedding"]

    again = json.loads(cli(*command, "--json").stdout)
    assert again["already_complete"] is True
    sizes = [one["size"] for one in again["clusters"]]
    assert sum(sizes) == documents.num_rows
    assert sizes == sorted(sizes, reverse=True)
    assert all(one["words"] and one["nearest"] for one in again["clusters"])
    assert cli("verify", tmp_path / "demo" / "run").exit_code == 0


def test_demo_with_too_few_documents(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("demo", "-o", tmp_path / "demo", "-k", 6, "--docs", 5)
    assert result.exit_code == 2
    assert "5 documents are too few for 6 clusters" in result.stderr
    assert not (tmp_path / "demo").exists()
    assert cli("demo", "-k", "six").exit_code == 2


def test_demo_without_scikit_learn_says_what_to_install() -> None:
    program = """
import sys
sys.modules["sklearn"] = None
from distclust.cli.main import main
sys.argv = ["distclust", "demo"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=subprocess_environment()
    )
    assert done.returncode == 2
    assert 'pip install "distclust[sklearn]"' in done.stderr
    assert "Traceback" not in done.stderr
