"""The README and the guides as tests read them: their fenced blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cerank import guides

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
DOCUMENTS = {"README": README} | {guide.name: guide.markdown for guide in guides.guides()}


def blocks(text: str, language: str = "") -> list[str]:
    """Return the contents of the fenced blocks of one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [content for kind, content in found if kind == language]


def commands(text: str) -> list[list[str]]:
    """Return the arguments of every `cerank` command in shell blocks: without comments, redirections and `cerank`."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line.split(" > ")[0].split("&&")[-1], comments=True)
        if words and words[0].removeprefix(".venv/bin/") == "cerank":
            found.append(words[1:])
    return found
