"""Commands that are printed for a user work in the user's lab."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cerank.app import next_steps
from cerank.settings import Flags, resolve


def test_a_command_for_the_default_lab_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERANK_LAB", str(tmp_path))
    lab = resolve(Flags(), {"CERANK_LAB": str(tmp_path)}, tmp_path).settings.lab
    assert next_steps.command(lab, "queue start") == "`cerank queue start`"


def test_a_command_for_another_lab_names_it_so_that_a_shell_takes_it_as_one_word(tmp_path: Path) -> None:
    lab = tmp_path / "my lab"
    words = shlex.split(next_steps.command(lab, "queue").strip("`"))
    assert words == ["cerank", "queue", "--lab", str(lab)]
