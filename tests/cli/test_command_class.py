"""The help of every command is plain and complete, and an option's name in another tool leads to ours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import cerank.cli
from cerank.cli.command_class import SYNONYMS, Command, reflowed
from cerank.cli.commands_on_use import GroupOnUse
from cerank.cli.typer_app import app
from cerank.errors import ExitCode, UsageError


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


COMMANDS = dict(_commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_no_type_of_python_and_no_text_lost_to_markup(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "<bool>" not in result.output
    assert "<list[" not in result.output
    assert "{" not in result.output.splitlines()[1]
    words = " ".join(result.output.replace("│", " ").split())
    for param in COMMANDS[path].params:
        shown = " ".join((param.help or "").replace("\\[", "[").split())
        assert shown[:40] in words, shown


def test_the_programs_help_says_of_each_command_what_the_command_says_itself() -> None:
    root = get_command(app)
    assert isinstance(root, GroupOnUse)
    summaries = {entry.name: (entry.panel, entry.summary) for entry in root.listed}
    said = {
        name: (command.rich_help_panel, (reflowed(command.help) or "").split("\n\n")[0])
        for name, command in root.commands.items()
    }
    assert summaries == said
    words = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("│", " ").split())
    assert all(entry.summary in words for entry in root.listed if not entry.is_hidden)


def test_the_programs_help_and_a_wrong_command_import_no_command() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cerank.cli.typer_app import app; "
        "results = [CliRunner().invoke(app, [word]) for word in ('--help', 'runn')]; "
        "print([result.exit_code for result in results]); "
        "print([name for name in sys.modules if name.startswith(('cerank.cli.commands.', 'cerank.app'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[0, 2]", "[]"], done.stdout


def test_a_paragraph_of_help_wraps_at_the_end_of_the_terminal_only() -> None:
    assert all("\n" not in (command.help or "").replace("\n\n", "") for command in COMMANDS.values())


@pytest.mark.parametrize("name", ["--topk", "-k", "--top-k=5"])
def test_another_tools_word_for_depth_leads_to_ours(name: str) -> None:
    result = CliRunner().invoke(app, ["run", name, "5"])
    assert isinstance(result.exception, UsageError)
    assert "--depth" in result.exception.hint


def test_a_synonym_is_no_option_of_a_command_that_lacks_ours() -> None:
    result = CliRunner().invoke(app, ["ps", "--topk", "5"])
    assert not isinstance(result.exception, UsageError)
    assert result.exit_code == ExitCode.USAGE


def test_each_synonym_leads_to_an_option_of_some_command() -> None:
    known = {name for command in COMMANDS.values() for param in command.params for name in param.opts}
    assert set(SYNONYMS.values()) - {"--output", "--replace"} <= known
    assert all(
        isinstance(command, Command) or path == () or hasattr(command, "commands") for path, command in COMMANDS.items()
    )


def test_a_system_without_posix_locks_is_told_so_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fcntl" else find(name))
    monkeypatch.setattr(sys, "argv", ["cerank", "ps"])
    with pytest.raises(SystemExit) as end:
        cerank.cli.main()
    assert end.value.code == ExitCode.USAGE
    assert "Windows Subsystem for Linux" in capsys.readouterr().err
