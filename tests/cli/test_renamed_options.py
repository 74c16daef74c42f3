"""Options with a new name: the old one works, warns, and is not in the help."""

from __future__ import annotations

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cerank.cli.renamed_options import RENAMED, with_new_names, without_seeds
from cerank.cli.typer_app import app
from cerank.errors import UsageError

OPTIONS = [(command, old, new) for command, names in RENAMED.items() for old, new in names.items()]


@pytest.mark.parametrize(("command", "old", "new"), OPTIONS)
def test_an_old_option_becomes_the_new_one_and_the_warning_names_it(
    command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert with_new_names(command, ["A", old, "x", f"{old}=y", "--", old]) == ["A", new, "x", f"{new}=y", "--", old]
    assert capsys.readouterr().err.count(f"{old} is now called {new}") == 2


@pytest.mark.parametrize(("command", "old", "new"), OPTIONS)
def test_the_command_has_the_new_option_and_its_help_only_that(command: str, old: str, new: str) -> None:
    known = get_command(app).commands[command]
    names = [name for parameter in known.params for name in parameter.opts]
    assert new in names
    assert old not in names


def test_an_option_of_the_same_name_of_another_command_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_new_names("evaluate", ["--run", "x"]) == ["--run", "x"]
    assert capsys.readouterr().err == ""


def test_a_command_line_with_an_old_name_is_parsed() -> None:
    found = CliRunner().invoke(app, ["report", "--correct", "no-such-correction", "x"])
    assert found.exit_code == 2
    assert "--correction" in found.output


@pytest.mark.parametrize("words", [["--seeds", "mean"], ["--seeds=mean"]])
def test_seeds_of_compare_have_no_effect_any_more(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert without_seeds(["A", *words, "B"]) == ["A", "B"]
    assert "--seeds has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seeds", "stack"], ["--seeds=stack"], ["--seeds"]])
def test_seeds_are_still_not_combined_in_any_other_way(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        without_seeds(["A", "B", *words])
    assert caught.value.where == "--seeds"
