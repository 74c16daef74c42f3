"""What scripts and tools write for the repository is up to date, and files for contributors say what is true."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

import cerank
from cerank.text.safe_text import counted

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "assets"))
import error_codes  # noqa: E402
import recipe_reference  # noqa: E402

sys.path.pop(0)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pinned() -> dict[str, str]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf8").splitlines()
    pins = (re.match(r"([\w.-]+)==([^ ;]+)", line) for line in lines)
    return {_canonical(pin[1]): pin[2] for pin in pins if pin}


def test_the_recipe_reference_is_up_to_date() -> None:
    text = recipe_reference.GUIDE.read_text(encoding="utf8")
    assert text == recipe_reference.page(), "run `make pages`"


def test_the_list_of_error_codes_is_up_to_date() -> None:
    assert error_codes.GUIDE.read_text(encoding="utf8") == error_codes.page(), "run `make pages`"


def test_error_codes_are_words_joined_by_hyphens() -> None:
    assert [code for code in error_codes.codes() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", code)] == []


RECIPE_TABLES = (
    *("data", "evaluate", "compute", "stages", "teachers", "passages", "tuned"),
    *("adapter", "losses", "negative_sources", "false_negatives", "filter", "passages", "curriculum"),  # of a stage
    "folds",  # of [tuned]
    "search",  # of a sweep
)


def test_the_recipe_reference_has_a_row_for_every_key() -> None:
    assert recipe_reference.page().count("\n| `") == sum(
        len(kind.__struct_fields__) for _, _, kind in recipe_reference.SECTIONS
    ) - len(RECIPE_TABLES)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
def test_the_lock_file_pins_a_version_that_the_project_allows(requirement: str) -> None:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    pinned = _pinned()
    assert _canonical(wanted.name) in pinned, "run `make lock`"
    assert wanted.specifier.contains(pinned[_canonical(wanted.name)]), "run `make lock`"


def test_the_lock_file_names_no_package_index() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf8")
    assert "://" not in text
    assert len(_pinned()) > 60


def test_the_version_is_written_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        assert cerank.__version__ not in re.findall(r"^version\s*[:=]\s*\"?([\d.]+)", _text(name), re.MULTILINE)


def test_every_target_and_script_that_contributing_names_is_there() -> None:
    text = _text("CONTRIBUTING.md")
    targets = set(re.findall(r"^([a-z]+):", _text("Makefile"), re.MULTILINE))
    named = set(
        re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^```.*?^```", text, re.MULTILINE | re.DOTALL)))
    )
    assert named
    assert named <= targets, counted(len(named - targets), "unknown target")
    scripts = set(re.findall(r"\.ci/[a-z.]+", text))
    assert [name for name in sorted(scripts) if not (ROOT / name.rstrip(".")).exists()] == []


def test_the_changelog_begins_with_the_version_of_the_program() -> None:
    heads = re.findall(r"^## \[?([\w.]+)\]?", _text("CHANGELOG.md"), re.MULTILINE)
    assert heads[0] in {"Unreleased", cerank.__version__}
    kinds = set(re.findall(r"^### (.*)$", _text("CHANGELOG.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_decisions_are_numbered_without_gaps() -> None:
    numbers = [
        int(number) for number in re.findall(r"^### (\d+)\. ", _text("cerank/guides/decisions.md"), re.MULTILINE)
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 20


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf8")
