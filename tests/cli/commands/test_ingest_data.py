"""What is made ahead of the first run by command, and that saying how costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cerank.errors import ExitCode
from cerank.trec.mapped_run import MappedRanking
from cerank.trec.open_run import open_run_file
from tests.model_fixtures import write_tiny
from tests.test_imports import SLOW
from tests.warm import started


def _cerank(words: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    return started("cerank", ["data", *words], cwd=cache.parent, environ={**os.environ, "CERANK_CACHE": str(cache)})


def test_a_run_is_ingested_ahead_and_then_found(tmp_path: Path) -> None:
    run, cache = tmp_path / "a.run", tmp_path / "cache"
    run.write_text("q Q0 d2 1 1 t\nq Q0 d1 2 3 t\nr Q0 d1 1 1 t\nq Q0 d3 3 1 t\n")
    done = _cerank(["ingest", str(run), "--verify", "--json"], cache)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["queries"], row["rows"], row["ties"], row["misranked"]) == (2, 4, 2, 1)
    assert row["rising"] == 0
    assert "1 query " in done.stderr
    found = open_run_file(run, cache)
    assert isinstance(found.ranking, MappedRanking)
    assert found.ranking["q"] == ("d1", "d3", "d2")
    (folder,) = (path for path in (cache / "rankings").iterdir() if path.is_dir())
    (folder / "scores.bin").write_bytes(bytes(16))
    assert _cerank(["ingest", str(run)], cache).returncode == 0
    damaged = _cerank(["ingest", str(run), "--verify"], cache)
    assert damaged.returncode == ExitCode.USAGE
    assert str(folder) in damaged.stderr
    assert "checksums" in damaged.stderr


def test_a_run_of_distances_is_told_with_the_number_of_its_queries(tmp_path: Path) -> None:
    run = tmp_path / "a.run"
    run.write_text("q Q0 d1 1 0.1 t\nq Q0 d2 2 0.3 t\nr Q0 d1 1 2 t\nr Q0 d2 2 1 t\ns Q0 d1 1 1 t\ns Q0 d2 2 4 t\n")
    done = _cerank(["ingest", str(run), "--json"], tmp_path / "cache")
    (row,) = json.loads(done.stdout)
    assert (row["misranked"], row["rising"]) == (2, 2)
    assert [line for line in done.stderr.splitlines() if "2 of 3 queries" in line] == done.stderr.splitlines()


def test_a_malformed_run_is_told_with_its_line(tmp_path: Path) -> None:
    run = tmp_path / "a.run"
    run.write_text("q Q0 d2 1 1 t\nq Q0 d1 2 nan t\n")
    done = _cerank(["ingest", str(run)], tmp_path / "cache")
    assert done.returncode == ExitCode.USAGE
    assert f"{run}:2" in done.stderr


def test_a_dataset_is_tokenized_for_a_base(tmp_path: Path) -> None:
    write_tiny(tmp_path / "base")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "docs.tsv").write_text("a\talpha beta\nb\tgamma\n")
    (folder / "queries.tsv").write_text("q\talpha\n")
    words = ["tokenize", str(folder), "--base", str(tmp_path / "base"), "--verify", "--json"]
    done = _cerank(words, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["kind"], row["texts"], row["tokens"]) for row in rows] == [("document", 2, 3), ("query", 1, 1)]
    part = _cerank(["tokenize", f"{folder}[:1]", "--base", str(tmp_path / "base")], tmp_path / "cache")
    assert part.returncode == ExitCode.USAGE
    assert f"{folder}[:1]" in part.stderr


@pytest.mark.parametrize("words", [["--help"], ["data", "ingest", "--help"], ["data", "tokenize", "--help"]])
def test_saying_how_imports_nothing_slow(words: list[str]) -> None:
    code = "import sys, runpy\nsys.argv = ['cerank', *sys.argv[1:]]\n"
    code += "try:\n    runpy.run_module('cerank', run_name='__main__')\n"
    code += "except SystemExit as end:\n    assert not end.code\nprint()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=300)
    held = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert held.isdisjoint({*SLOW, "polars", "zstandard"})
