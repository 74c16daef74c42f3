"""The guides that come with cerank: Markdown files, each with a title and a summary of one line.

Invariant: a guide starts with `# Title`, an empty line and its summary; the terminal and a website show the same file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.errors import UsageError
from cerank.registry import nearest

FOLDER = Path(__file__).parent
ORDER = (  # as a new user would read them
    "first-run",
    "verdicts",
    "recipes",
    "models",
    "recipe-reference",
    "datasets",
    "long-documents",
    "matrices",
    "sweeps",
    "clusters",
    "teachers",
    "dashboard",
    "reliability",
    "output",
    "benchmarks",
    "library",
    "extending",
    "vocabulary",
    "architecture",
    "decisions",
)


class Guide(msgspec.Struct, frozen=True):
    """A guide: the name that commands take, and what its file holds."""

    name: str
    title: str
    summary: str
    markdown: str  # the whole file, title and summary included


def guides() -> list[Guide]:
    """Return every guide, in the order in which a new user would read them."""
    return [_read(name) for name in ORDER]


def find(name: str) -> Guide:
    """Return the guide called `name`.

    Raises:
        UsageError: no guide has this name; the hint holds the nearest one.
    """
    if name not in ORDER:
        raise UsageError(f"no guide is called '{name}'", hint=f"{nearest(name, ORDER)}; `cerank guide` lists them")
    return _read(name)


def _read(name: str) -> Guide:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf8")
    title, _, summary, *_ = text.split("\n", 3)
    return Guide(name, title.removeprefix("# "), summary, text)
