"""Retired words stay retired: each has a standard term or US spelling that sources, guides and README use instead."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
EVERYWHERE = ("cerank", "README.md", "CONTRIBUTING.md", "SECURITY.md")
ALL = (*EVERYWHERE, "CHANGELOG.md", "assets", "tests")
FRONT = (
    "cerank/cli",
    "cerank/app",
    "cerank/tui",
    "cerank/text",
    "cerank/guides",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)


class Retired(NamedTuple):
    """A word or phrase that is not used any more; to retire another one, add a row."""

    pattern: str  # a regular expression; upper and lower case count as the same
    better: str  # what to write instead
    where: tuple[str, ...] = EVERYWHERE  # files and folders in which it is retired


RETIRED = (
    Retired(r"held against", "compared with"),
    Retired(r"left out:", "Default: ...", FRONT),
    Retired(r"without a word", "without reporting"),
    Retired(r"to the same bits", "bit-identical"),
    Retired(r"hold (it|them) to (its|their) hashes", "verify the checksums"),
    Retired(r"\bhouse\b", "app, package"),
    Retired(r"(?<!repair\.)\bmend(ed|ing|s)?\b", "fix, repair, regenerate", FRONT),
    Retired(r"moved? aside|set aside", "renamed to *.bad, quarantined", FRONT),
    Retired(r"makes? (it )?again", "regenerate", FRONT),
    Retired(r"a fault of cerank", "internal error", FRONT),
    Retired(r"\bgoes on\b|\bgo on with\b", "continue, resume", FRONT),
    Retired(r"\bstands (twice|beside|still)\b|\bstand together\b", "is given twice, is grouped, is stopped", FRONT),
    Retired(r"leave it over|left it over", "left behind by", FRONT),
    Retired(r"is all the same\b|all the same\?", "anyway", FRONT),
    Retired(r"\b(a|A) person('s)?\b|\bthe person\b", "the user"),
    Retired(r"\bparted by\b", "separated by", FRONT),
    Retired(r"\bnarrat", "print a message, footnote", FRONT),
    Retired(r"(?-i:\b(Facing|Tally|News|Origin)\b)", "PublishedComparison, WorkTotals, RunUpdate, RecipeSource", FRONT),
    Retired(r"(?-i:class (Asked|Wanted|Named|Told|Found|Shown|Looked|Need|Grid|Mark|Bar)\b)", "a noun", FRONT),
    Retired(r"\brooms\b", "packages, directories", FRONT),
    Retired(r"(?-i:\b(Material|Supply|Drift|HeldOut|StageFacts|RankingFacts)\b)", "TrainingData, SamplingStats, ..."),
    Retired(r"\b(side_by_side|lanes?|rehearse|there and back)\b", "in threads, probe memory, forward and backward"),
    Retired(
        r"(?-i:\b(LikeBert|ByInterface|_LaidOut|Shelf|OwnTraining)\b)|\bshelf\b|\bcontenders?\b", "PrepackedLinear, ..."
    ),
    Retired(r"(?-i:\b(Desk|Seal|Sink|Spill|StoredRanking|KeptScores)\b)|\bdonors?\b", "RunContext, checksum, ..."),
    Retired(r"\b(Twice|Scattered|EndOfFloats|Textual)Error\b", "DuplicateDocumentError, UngroupedQueriesError, ..."),
    Retired(r"\b(heed|grave|learnt|sealed)\b", "raise_if_stopped, trash, trained on, checksummed"),
    Retired(r"(colo|neighbo|behavio|favo|hono|flavo)ur", "color, neighbor, ...", ALL),
    Retired(
        r"(?<![a-z])(analy|categor|character|final|general|initial|local|maxim|memor|minim|normal|optim|organ|penal|"
        r"priorit|random|recogn|serial|summar|synchron|token|util|visual)is(e|ed|es|er|ing|able|ations?)(?![a-z])",
        "normalize, recognize, ...",
        ALL,
    ),
    Retired(r"judgement", "judgment", ALL),
    Retired(
        r"(?<![a-z])(analys(e|ed|ing)|catalogues?|centred?|centres|greys?|licences?)(?![a-z])",
        "analyze, catalog, ...",
        ALL,
    ),
    Retired(
        r"(?<!is_)(?-i:[Cc]ancell(ed|ing))\b|(label|model|signal)l(ed|ing)\b|spelt\b",  # Slurm writes CANCELLED
        "canceled, labeled, ...",
        ALL,
    ),
    Retired(r"(?-i:\b(Outlook|Asked|Wanted|\w*Facts)\b)|\boutlook\b", "PowerEstimate, MeasureSpec, ...", ALL),
    Retired(r"\breads? back otherwise\b|\bset_aside\b", "checksum mismatch, quarantine"),
)
ALLOWED: dict[str, tuple[str, ...]] = {  # file -> parts of lines that may stay, each with its reason
    "CONTRIBUTING.md": ("That the others are held against.",),  # the example of what not to write
    # a status of the Batch API, spelled so there
    "cerank/teachers/engines/batch_records.py": ('"cancelled"',),
    "cerank/teachers/engines/batch_server.py": ('"cancelled"',),
    "tests/teachers/batch_api.py": ('"cancelled"',),
    "cerank/trec/layouts.py": ("GRADE_COLUMNS",),  # the name of a column in files from elsewhere
}


def _files(where: tuple[str, ...]) -> list[Path]:
    paths = [ROOT / name for name in where]
    inside = [file for path in paths if path.is_dir() for file in sorted(path.rglob("*"))]
    files = [file for file in [*paths, *inside] if file.suffix in {".py", ".md", ".tcss", ".toml"}]
    return [file for file in files if file != Path(__file__).resolve()]  # the table itself


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf8")


@pytest.mark.parametrize("retired", RETIRED, ids=lambda retired: retired.better)
def test_no_file_uses_a_retired_word(retired: Retired) -> None:
    uses = []
    for path in _files(retired.where):
        name = str(path.relative_to(ROOT))
        if not re.search(retired.pattern, _text(path), re.IGNORECASE):
            continue
        for number, line in enumerate(_text(path).splitlines(), 1):
            is_allowed = any(part in line for part in ALLOWED.get(name, ()))
            if not is_allowed and re.search(retired.pattern, line, re.IGNORECASE):
                uses.append(f"{name}:{number}: {line.strip()}")
    assert not uses, f"write '{retired.better}' instead in\n" + "\n".join(uses)


STAND_INS = {"found", "asked", "wanted", "kept", "told", "one"}  # say nothing of what they hold


def test_locals_and_parameters_are_named_for_what_they_hold() -> None:
    uses = []
    for path in sorted((ROOT / "cerank").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in {inner for function in functions for inner in ast.walk(function)}:
            is_bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if is_bound else node.arg if isinstance(node, ast.arg) else ""
            if name in STAND_INS:
                uses.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not uses, "name these for what they hold:\n" + "\n".join(uses)
