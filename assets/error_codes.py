"""Writes the last part of cerank/guides/library.md: the codes of errors, from the sources.

`python assets/error_codes.py` finds every `code="..."` that an error is given.
A test checks that the list is up to date.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "cerank"
GUIDE = PACKAGE / "guides" / "library.md"
HEADING = "## Error codes\n"


@functools.cache
def codes() -> list[str]:
    """Return the codes that errors are given in the sources, in alphabetical order."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf8")
        for node in ast.walk(ast.parse(source)) if "code=" in source else ():
            keywords = node.keywords if isinstance(node, ast.Call) else []
            found |= {
                keyword.value.value
                for keyword in keywords
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
            }
    return sorted(code for code in found if code)


def page() -> str:
    """Return the guide with its list of codes as the sources have them."""
    before, _, _ = GUIDE.read_text(encoding="utf8").partition(HEADING)
    listed = textwrap.fill(", ".join(f"`{code}`" for code in codes()), 120, break_on_hyphens=False)
    return f"{before}{HEADING}\n{listed}\n"


if __name__ == "__main__":
    GUIDE.write_text(page(), encoding="utf8")
