from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

import cerank.tui
from cerank.text.safe_text import shown
from cerank.tui.app import CerankApp
from cerank.tui.cells import SafeLines, cell, content, joined
from tests.tui.conftest import press, settle, text_of
from tests.tui.labs import LabFolder
from tests.tui.terminal import HOSTILE, Terminal, hostile_lab, leaks

SHOWING = {
    "update",
    "add_row",
    "add_column",
    "write",
    "write_line",
    "write_lines",
    "notify",
    "Label",
    "Static",
    "Button",
}
SAFE = {"cell", "content", "joined", "stacked", "words", "shown"}
KNOWN = {"fitting"}  # lines of a log that `shown` has made safe when they came


def _called(node: ast.expr) -> str:
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _made_safe(function: ast.AST) -> set[str]:
    """Names that a function gives to nothing but what the cells made."""
    safe, other = _declared(function), set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            (safe if _called(node.value) in SAFE else other).add(node.targets[0].id)
    return (safe - other) | KNOWN


def _declared(function: ast.AST) -> set[str]:
    """Parameters that a function asks to be safe already, as mypy checks."""
    given = [node for node in ast.walk(function) if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name)]
    return {node.arg for node in given if node.annotation.id in {"Content", "Text"}}  # type: ignore[union-attr]


def _is_bare(node: ast.expr, safe: set[str]) -> bool:
    """Whether an argument is text that nothing made safe: a variable or an f-string."""
    if isinstance(node, ast.BinOp):
        return _is_bare(node.left, safe) or _is_bare(node.right, safe)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Name) and node.id not in safe)


def _bare_names(tree: ast.AST) -> list[str]:
    """Calls that show a bare variable or an f-string, as name:line."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = set()
    for function in functions or [tree]:
        safe = _made_safe(function)
        for node in ast.walk(function):
            name = _called(node) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in SHOWING and any(_is_bare(one, safe) for one in node.args):
                found.add(f"{name}:{node.lineno}")
    return sorted(found)


@pytest.mark.parametrize("path", sorted(Path(cerank.tui.__path__[0]).rglob("*.py")), ids=lambda path: path.name)
def test_no_widget_is_given_a_bare_variable_or_an_f_string(path: Path) -> None:
    assert _bare_names(ast.parse(path.read_text())) == []


def test_the_check_sees_what_it_is_there_for() -> None:
    bad = [
        'widget.update(f"{name}")',
        "Static(title)",
        'log.write(name + f"{x}")',
        "Label(text)",
        "app.notify(message)",
    ]
    assert [len(_bare_names(ast.parse(line))) for line in bad] == [1] * len(bad)
    assert _bare_names(ast.parse("widget.update(content(name)); Static(id='x'); table.add_row(*cells)")) == []


@settings(max_examples=100)
@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_a_terminal_acts_upon_leaves_the_cells(text: str) -> None:
    for made in (cell(text).plain, content(text).plain, joined(text, (text, "bold")).plain):
        assert shown(made, 10_000) == made


@settings(max_examples=100)
@given(st.text(alphabet=st.characters(), max_size=50))
def test_the_last_gate_drops_what_a_terminal_acts_upon_and_keeps_the_rest(text: str) -> None:
    (out,) = SafeLines().apply([Segment(text, Style(bold=True))], Color.parse("black"))
    assert out.text == "".join(char for char in text if shown(char) == char)


@pytest.mark.parametrize(
    "name",
    [
        name if name in {"ansi", "markup", "controls"} else pytest.param(name, marks=pytest.mark.slow)
        for name in HOSTILE
    ],
)
async def test_hostile_text_is_shown_as_marks_in_every_tab(folder: LabFolder, app: CerankApp, name: str) -> None:
    hostile_lab(folder, HOSTILE[name])
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        for keys in (("t", "escape"), ("d", "escape"), ("enter",), ("2",), ("3",), ("4",), ("5",), ("6",)):
            await press(pilot, *keys)
            assert not leaks(text_of(app).replace("\n", "").encode("utf-8", "surrogatepass"))


async def test_what_is_pasted_into_the_filter_is_made_safe(folder: LabFolder, app: CerankApp) -> None:
    from textual.events import Paste

    folder.run("one")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "slash")
        app.screen.query_one("#filter").post_message(Paste("\x1b]52;c;SEVMTE8=\x07[/nope]"))
        await settle(pilot)
        seen = text_of(app)
        assert "⟨001b⟩]52" in seen
        assert "\x1b" not in seen


@pytest.mark.parametrize("name", HOSTILE)
def test_no_byte_of_a_lab_steers_a_real_terminal(folder: LabFolder, name: str) -> None:
    hostile_lab(folder, HOSTILE[name])
    with Terminal(["tui"], {"CERANK_LAB": str(folder.path), "HOME": str(folder.path)}) as terminal:
        terminal.until("damaged")
        for key, word in (("\r", "1 Curves"), ("3", "lines"), ("2", "name ="), ("5", "grade")):
            terminal.press(key)
            terminal.until(word)
        terminal.press("q")
        terminal.end()
    assert leaks(terminal.output) == []
    assert b"Traceback" not in terminal.output
    assert terminal.code == 0
