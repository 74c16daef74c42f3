"""Errors for a person: what, where, a hint; and an exit code that says which kind."""

from __future__ import annotations

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
