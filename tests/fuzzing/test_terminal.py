"""Hostile text through the command line in a real pseudo-terminal, and in what it writes: byte by byte."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.tui.labs import LabFolder
from tests.tui.terminal import HOSTILE, Terminal, hostile_lab, leaks

_COLOR = re.compile(rb"\x1b\[[0-9;]*m")  # what rich and our own errors draw with
_SPOKEN = ("osc52", "title", "ansi", "c1", "bidi", "controls", "megabyte")
STEERS = "".join(HOSTILE[name] for name in ("osc52", "title", "ansi", "c1", "bidi", "controls", "markup"))


def _leaks(output: bytes) -> list[str]:
    """As the dashboard's scan, and no escape at all but colors: a command draws no screen."""
    plain = _COLOR.sub(b"", output)
    return (
        leaks(plain) + (["an escape"] if b"\x1b" in plain else []) + (["a traceback"] if b"Traceback" in plain else [])
    )


def _said(words: list[str], folder: LabFolder) -> bytes:
    environ = {"CERANK_LAB": str(folder.path), "HOME": str(folder.path), "CERANK_CACHE": str(folder.path / "cache")}
    with Terminal(words, environ) as terminal:
        terminal.end()
    return terminal.output


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabFolder:
    """One lab whose every text holds every attack."""
    folder = LabFolder(tmp_path_factory.mktemp("lab") / "lab")
    hostile_lab(folder, STEERS)
    return folder


@pytest.mark.parametrize("words", [["ps"], ["ps", "--format", "json"], ["ps", "--format", "latex"], ["queue"]])
def test_a_list_of_hostile_runs_steers_no_terminal(words: list[str], lab: LabFolder) -> None:
    output = _said(words, lab)
    assert _leaks(output) == []
    assert output.strip()


def test_what_is_known_of_a_hostile_run_steers_no_terminal(lab: LabFolder) -> None:
    run = max(path.name for path in (lab.path / "runs").iterdir() if path.name.startswith("2026"))
    for words in (["show", run], ["logs", run], ["show", "nothing" + STEERS.replace("\0", "")]):
        output = _said(words, lab)
        assert _leaks(output) == [], words
        assert output.strip()


def test_errors_about_hostile_files_steer_no_terminal(lab: LabFolder, tmp_path: Path) -> None:
    name = STEERS.replace("\0", "").replace("/", "")[:60]
    bad = tmp_path / f"{name}.run"
    bad.write_bytes(f"q Q0 d 1 {STEERS.split()[0]} t x y\n".encode("utf-8", "surrogatepass"))
    recipe = tmp_path / f"{name}.toml"
    recipe.write_bytes(b'"' + rb"\u001b]52;c;QQ==\u0007[/x]" + b'" = 1\n')
    for words in (
        ["recipes", "show", str(recipe)],
        ["recipes", "show", name],
        ["data", "import", "run", str(bad), "--into", str(tmp_path / "out")],
        ["ps", "--format", name],
        ["show", "none" + name],
    ):
        output = _said(words, lab)
        assert _leaks(output) == [], words
        assert b"error" in output.lower(), (words, output)


@pytest.mark.slow
def test_checks_and_files_of_hostile_names_steer_no_terminal(lab: LabFolder, tmp_path: Path) -> None:
    """What was read, is checked or is to be written lies in a folder whose name steers, and breaks its line."""
    folder = tmp_path / (STEERS.replace("\0", "").replace("/", "")[:60] + "\n\x1b]0;x\x07")
    folder.mkdir()
    (folder / "a.parquet").write_bytes(b"PAR1" + b"\x1b]0;x\x07" * 20 + b"PAR1")
    (folder / "a.run").write_text("q\x7f1 Q0 d\x9b1 1 1 t\n")
    (folder / "a.qrels").write_text("q\x7f1 0 d\x9b1 1\n")
    (folder / "a.toml").write_bytes(b'"\\u001b]0;x" = 1\n')
    (folder / "docs.jsonl").write_text('{"doc_id": "\\u001b"}\n')
    run = max(path.name for path in (lab.path / "runs").iterdir() if path.name.startswith("2026"))
    for words in (
        ["doctor"],
        ["verify", run],
        ["evaluate", str(folder / "a.run"), "--qrels", str(folder / "a.qrels")],
        ["data", "import", "run", str(folder / "a.parquet"), "--into", str(folder / "out")],
        ["data", "ingest", str(folder / "a.toml")],
        ["datasets", str(folder)],
        ["queue", "move", folder.name, "1"],
    ):
        output = _said(words, lab)
        assert _leaks(output) == [], words
        assert output.strip(), words


def test_a_report_of_hostile_runs_holds_no_control_and_no_formula(lab: LabFolder, tmp_path: Path) -> None:
    runs = sorted(path.name for path in (lab.path / "runs").iterdir() if path.name.startswith("2026"))
    folder = tmp_path / "\x1b]0;x\x07\n"
    assert _leaks(_said(["report", *runs, "--output", str(folder)], lab)) == []
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert {path.suffix for path in written} >= {".html", ".tex", ".csv", ".md", ".svg", ".json"}
    for path in written:
        assert _leaks(path.read_bytes()) == [], path.name
        assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name)
        if path.suffix == ".csv":
            assert not re.search(r'(^|,)"?[=+@]', path.read_text(), re.MULTILINE), path.name


def test_a_curve_with_hostile_labels_is_a_picture_without_a_word_of_code() -> None:
    """Every text of the SVG stands as text: no element, no attribute and no entity comes of it."""
    import numpy as np

    from cerank.app.report.svg_plot import Panel, PlottedLine, svg

    label = "<script>alert(1)</script>\"' onload=x &amp; ]]> <!-- \x1b]0;x\x07 \x00 \ud800 <image href='http://x'/>"
    line = np.array([0.0, 1.0, 2.0])
    drawn = svg([Panel(label, label, (PlottedLine(label, line, line),), ((1.0, label),))])
    honest = svg([Panel("a", "a", (PlottedLine("a", line, line),), ((1.0, "a"),))])
    root, other = ElementTree.fromstring(drawn), ElementTree.fromstring(honest)
    assert {element.tag for element in root.iter()} == {element.tag for element in other.iter()}
    assert {key for each in root.iter() for key in each.attrib} == {key for each in other.iter() for key in each.attrib}
    assert any("<script>" in (element.text or "") for element in root.iter())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", drawn)


def test_names_of_files_made_of_hostile_words_stay_in_their_folder() -> None:
    from cerank.runs.layout import plain_name, slug

    words = [
        "../../etc/passwd",
        "..",
        ".",
        "",
        "/",
        "a\0b",
        "a/b",
        "~",
        "-rf",
        "con",
        "\u202e.gnp",
        STEERS,
        "x" * 5000,
        "é" * 300,
    ]
    for make in (plain_name, slug):
        for word in words:
            made = make(word)
            assert made
            assert "/" not in made
            assert made not in {".", ".."}
            assert not made.startswith((".", "-", "~"))
            assert len(made.encode()) <= 200
            assert re.fullmatch(r"[A-Za-z0-9._+-]+", made), made
    assert len({slug(word) for word in words}) == len(words)
