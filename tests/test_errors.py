"""Errors for a person: what, where, a hint; and an exit code that says which kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank import errors
from cerank.errors import CerankError, ExitCode


def test_an_error_reads_as_one_line_with_place_and_hint() -> None:
    assert str(CerankError("no such file", where="a.toml:3", hint="check the path")) == (
        "a.toml:3: no such file (check the path)"
    )
    assert str(CerankError("no such file")) == "no such file"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.FormatError, 2),
        (errors.RecipeError, 2),
        (errors.MissingError, 3),
        (errors.HeldError, 4),
        (errors.RunFailedError, 1),
    ],
)
def test_each_kind_of_error_ends_with_its_own_code(kind: type[CerankError], code: int) -> None:
    assert kind("x").exit_code == code


@pytest.mark.parametrize("kind", [CerankError, *CerankError.__subclasses__()])
def test_an_error_has_the_code_it_was_given_or_that_of_its_class(kind: type[CerankError]) -> None:
    assert kind("x", code="run-not-found").code == "run-not-found"
    assert kind("x").code == kind.class_code
    assert kind.class_code


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "MISSING": 3,
        "HELD": 4,
        "PAUSED": 75,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(("name", "near"), [("bm26.run", "bm25.run"), ("BM25.run.gz", "bm25.run"), ("zzz", "")])
def test_a_missing_file_gets_its_nearest_neighbor_as_a_hint(tmp_path: Path, name: str, near: str) -> None:
    (tmp_path / "bm25.run").touch()
    hint = errors.near_files(tmp_path / name)
    assert (str(tmp_path / near) in hint) if near else hint == ""


def test_a_missing_folder_is_named_by_its_first_part_that_is_missing(tmp_path: Path) -> None:
    assert str(tmp_path / "a") in errors.near_files(tmp_path / "a" / "b" / "c.run").split()
    assert errors.near_files(Path("\0/b")) == ""


def test_the_systems_error_about_a_missing_file_becomes_one_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "qrels.txt").touch()
    error = errors.os_error(FileNotFoundError(2, "No such file or directory"), tmp_path / "qrel.txt")
    assert isinstance(error, errors.MissingError)
    assert error.where == str(tmp_path / "qrel.txt")
    assert "qrels.txt" in error.hint
