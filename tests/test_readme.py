"""The README tells the truth about commands, rooms and recipes."""

from __future__ import annotations

import re
from pathlib import Path

from cerank import recipes
from cerank.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language=""):
    found = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def test_the_test_command_is_what_continuous_integration_runs():
    command = README.split("### Run the tests")[1].split("```sh\n")[1].split("\n```")[0]
    pytest_part = command.split(".venv/bin/")[-1]
    assert pytest_part.startswith("python -m pytest")
    assert pytest_part in (ROOT / ".ci" / "run").read_text()


def test_the_first_command_ends_in_the_main_job():
    (command,) = [block.strip() for block in blocks("sh") if "contrastive-then-distill" in block and "venv" in block]
    assert command.endswith("cerank run --recipe contrastive-then-distill")


def test_every_command_it_names_exists():
    from cerank.cli.app import app

    known = {info.name or info.callback.__name__ for info in app.registered_commands}
    known |= {info.name for info in app.registered_groups}
    named = set(re.findall(r"cerank ([a-z]+)\b", " ".join(blocks("sh"))))
    table = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    named |= {name for cell in table for name in re.findall(r"`([a-z]+)", cell)}
    assert named
    assert named <= known


def test_every_room_on_its_map_is_there_and_none_is_missing():
    (house,) = [block for block in blocks() if block.startswith("cerank/\n")]
    drawn = set(re.findall(r"^  ([a-z]+)/ ", house, re.MULTILINE))
    rooms = {path.name for path in (ROOT / "cerank").iterdir() if (path / "__init__.py").is_file()}
    assert drawn == rooms


def test_its_recipe_loads(tmp_path):
    (text,) = blocks("toml")
    (tmp_path / "gentle.toml").write_text(text)
    assert recipes.load(str(tmp_path / "gentle.toml")).recipe.base == "roberta"


def test_its_exit_codes_are_those_of_the_program():
    line = README.split("**Exit codes**:")[1].split("\n\n")[0]
    assert {int(number) for number in re.findall(r"\b(\d+) [a-z]", line)} == set(ExitCode)
