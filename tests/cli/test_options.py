"""An option that several commands have is declared once."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import cerank.cli

COMMANDS = Path(cerank.cli.__file__).parent


def test_no_option_is_declared_twice_in_the_same_words() -> None:
    places = defaultdict(list)
    for path in COMMANDS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
                text = ast.unparse(node.slice)
                if "typer.Option(" in text:
                    places[text].append(f"{path.name}:{node.lineno}")
    assert len(places) > 200
    assert {text: where for text, where in places.items() if len(where) > 1} == {}
