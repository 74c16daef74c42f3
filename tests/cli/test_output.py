"""The sink: the same table in every format, data on stdout, words on stderr, nothing that acts upon a terminal."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from cerank.cli.output import (
    Column,
    Kind,
    Table,
    check_new,
    emit,
    info,
    report_error,
    rounded,
    write_output,
)
from cerank.errors import ExitCode, RecipeError, UsageError
from cerank.settings import FORMATS

TABLE = Table(
    "runs",
    (
        Column("run", "Run"),
        Column("ndcg", "nDCG@10", "number"),
        Column("difference", "Difference", "signed"),
        Column("p", "p", "p"),
        Column("done", "Done", "percent"),
    ),
    (("a_b", 0.512345678901234, -0.01, 0.0000123, 0.5), ("[/c]|", None, 0.25, math.nan, 1)),
    title="All runs",
    notes=("p is corrected",),
    empty="no runs",
)
ATTACK = "\x1b]52;c;aGk=\x07[bold]:smile:[/nope]\x9b2J\r\n\ttail"


def text_of(form: str, *tables: Table) -> str:
    page = io.StringIO()
    emit(tables[0] if len(tables) == 1 else tables, form, page)
    return page.getvalue()


def in_terminal(code: str, **environ: str) -> str:
    """What a fresh Python that runs `code` shows on a terminal 60 columns wide."""
    leader, follower = pty.openpty()
    settings = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "FORCE_COLOR"}}
    settings |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environ
    head = "import fcntl, struct, termios; fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 20, 60, 0, 0))\n"
    head += "from cerank.cli.output import *\nfrom cerank.errors import *\n"
    done = subprocess.Popen([sys.executable, "-c", head + code], stdout=follower, stderr=follower, env=settings)
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:  # Linux's way to say that the other side is closed
        pass
    os.close(leader)
    assert done.wait(timeout=300) == 0, seen
    return seen.decode()


def test_tsv_is_exact_and_plain() -> None:
    assert text_of("tsv", TABLE) == (
        "run\tndcg\tdifference\tp\tdone\na_b\t0.512345678901234\t-0.01\t1.23e-05\t0.5\n[/c]|\t\t0.25\tnan\t1\n"
    )


def test_json_is_one_document_with_null_for_what_it_cannot_hold() -> None:
    first, second = json.loads(text_of("json", TABLE))
    assert first == {"run": "a_b", "ndcg": 0.512345678901234, "difference": -0.01, "p": 0.0000123, "done": 0.5}
    assert second == {"run": "[/c]|", "ndcg": None, "difference": 0.25, "p": None, "done": 1}


def test_jsonl_is_a_document_a_row() -> None:
    assert [json.loads(line) for line in text_of("jsonl", TABLE).splitlines()] == json.loads(text_of("json", TABLE))


def test_latex_is_a_booktabs_table_with_rounded_numbers() -> None:
    assert text_of("latex", TABLE) == (
        "% \\usepackage{booktabs,threeparttable}\n\\begin{table}\n\\centering\n\\begin{threeparttable}\n"
        "\\caption{All runs}\n"
        "\\begin{tabular}{lrrrr}\n\\toprule\nRun & nDCG@10 & Difference & p & Done \\\\\n\\midrule\n"
        "a\\_b & 0.5123 & $-$0.0100 & \\textless{}0.001 & 50.0\\% \\\\\n"
        "{[}/c]\\textbar{} &  & +0.2500 & nan & 100.0\\% \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\\begin{tablenotes}\\footnotesize\n\\item p is corrected\n\\end{tablenotes}\n\\end{threeparttable}\n"
        "\\end{table}\n"
    )


def test_latex_without_notes_is_the_bare_tabular_with_its_title_as_a_comment() -> None:
    bare = Table("runs", TABLE.columns, TABLE.rows, title="All runs")
    text = text_of("latex", bare)
    assert text.startswith("% All runs\n\\begin{tabular}{lrrrr}\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")


def test_markdown_is_a_table_of_github() -> None:
    assert text_of("markdown", TABLE) == (
        "| Run | nDCG@10 | Difference | p | Done |\n| --- | ---: | ---: | ---: | ---: |\n"
        "| a\\_b | 0.5123 | -0.0100 | \\<0.001 | 50.0% |\n| \\[/c\\]\\| |  | +0.2500 | nan | 100.0% |\n"
        "\n- p is corrected\n"
    )


def test_a_drawn_table_shows_title_rows_and_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = text_of("table", TABLE).splitlines()
    assert lines[0] == "All runs"
    assert [line.split() for line in lines if "a_b" in line] == [["a_b", "0.5123", "-0.0100", "<0.001", "50.0%"]]
    assert any("[/c]|" in line for line in lines)
    assert lines[-1] == "p is corrected"


def test_nothing_is_cut_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "x" * 1500 in text_of("table", Table("t", (Column("a", "A"),), (("x" * 1500,),)))


def test_tsv_is_the_format_where_there_is_no_terminal() -> None:
    assert text_of("", TABLE) == text_of("tsv", TABLE)


def test_several_tables_are_told_apart_in_every_format() -> None:
    other = Table("more", (Column("a", "A"),), ((1,),))
    assert json.loads(text_of("json", TABLE, other))["more"] == [{"a": 1}]
    assert json.loads(text_of("jsonl", TABLE, other).splitlines()[-1]) == {"table": "more", "a": 1}
    assert text_of("tsv", TABLE, other).endswith("\n\na\n1\n")


def test_a_table_without_rows_is_empty_for_machines_and_a_word_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    bare = Table("t", (Column("a", "A"),), (), empty="no runs; see `cerank run --help`")
    assert text_of("tsv", bare) == "a\n"
    assert json.loads(text_of("json", bare)) == []
    assert text_of("jsonl", bare) == ""
    assert text_of("table", bare) == ""
    assert capsys.readouterr().err == "no runs; see `cerank run --help`\n"


@pytest.mark.parametrize("form", FORMATS)
def test_no_text_acts_upon_the_terminal_in_any_format(form: str) -> None:
    table = Table("t", (Column("a", ATTACK),), ((ATTACK,),), title=ATTACK, notes=(ATTACK,))
    written = text_of(form, table)
    assert all(char in {"\n", "\t"} or char.isprintable() for char in written)
    assert ":smile:" in written
    assert "nope" in written


@pytest.mark.parametrize(
    ("value", "kind", "seen"),
    [
        (3, "number", "3"),
        (0.0, "number", "0.0000"),
        (3e-6, "number", "3.0e-06"),
        (0.25, "signed", "+0.2500"),
        (-3, "signed", "-3"),
        (0, "signed", "0"),
        (0.0009, "p", "<0.001"),
        (0.0123, "p", "0.012"),
        (1, "p", "1.000"),
        (0.615, "percent", "61.5%"),
        (1023, "bytes", "1023 B"),
        (1536, "bytes", "1.5 KiB"),
        (3 * 2**40, "bytes", "3.0 TiB"),
        (59.6, "seconds", "1:00"),
        (3723, "seconds", "1:02:03"),
        (math.inf, "seconds", "inf"),
        (True, "text", "yes"),
        (2026, "text", "2026"),
        (None, "p", ""),
        ("–", "number", "–"),
    ],
)
def test_a_value_reads_as_its_kind(value: str | float | None, kind: Kind, seen: str) -> None:
    assert rounded(value, Column("a", "A", kind)) == seen


def test_words_go_to_stderr_and_data_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    info("saved\x1b[31m in\nlab")
    write_output("line\x07\n")
    seen = capsys.readouterr()
    assert seen.err == "saved⟨001b⟩[31m in\nlab\n"
    assert seen.out == "line⟨0007⟩\n"


def test_an_error_is_one_paragraph_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(RecipeError("a: wrong\nb: wrong too\x1b[2J", where="r.toml:3", hint="see\nhelp"))
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == "error: a: wrong\n       b: wrong too⟨001b⟩[2J\n  at r.toml:3\n  hint: see help\n"


def test_an_error_without_place_and_hint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(UsageError("no"))
    assert capsys.readouterr().err == "error: no\n"


def test_a_character_that_the_stream_cannot_write_becomes_an_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    emit(Table("t", (Column("a", "Größe"),), (("Δ",),)), "table", stream)
    info("→", stream)
    assert b"Gr\\xf6\\xdfe" in raw.getvalue()
    assert b"\\u0394" in raw.getvalue()
    assert raw.getvalue().endswith(b"\\u2192\n")


DRAW = """emit(Table("t", (Column("a", "Name"), Column("b", "Loss", "number")), (("word " * 30, 0.5),), title="T"))
report_error(UsageError("no"))"""


def test_on_a_terminal_a_table_is_drawn_as_wide_as_it_and_in_color() -> None:
    seen = in_terminal(DRAW)
    assert "─" in seen
    assert "\x1b[1;31merror:" in seen
    plain = in_terminal(DRAW, NO_COLOR="1")
    assert max(len(line.rstrip("\r")) for line in plain.replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")) <= 60


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_is_no_color(environ: dict[str, str]) -> None:
    seen = in_terminal(DRAW, **environ)
    assert not any(f"\x1b[{code}m" in seen for code in ("31", "1;31", "32", "33"))
    assert "error: no" in seen


def test_a_reader_that_goes_away_ends_the_process_quietly() -> None:
    code = """
from cerank.cli.output import *
emit(Table("t", (Column("a", "A"),), tuple((str(n),) for n in range(100_000))), "tsv")
raise AssertionError("the reader is gone")
"""
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout is not None
    assert done.stderr is not None
    assert done.stdout.readline() == b"a\n"
    done.stdout.close()
    assert done.stderr.read() == b""
    assert done.wait(timeout=300) == 0
    done.stderr.close()


def test_a_row_of_the_wrong_length_is_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_of("json", Table("t", (Column("a", "A"),), ((1, 2),)))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("words", [["--help"], ["recipes", "list"], ["ps"]])
def test_a_full_disk_behind_stdout_is_an_error_of_one_sentence(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = _cerank(words, tmp_path, stdout=full)
    assert done.returncode == ExitCode.FAILED
    assert "internal error" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    done = _cerank(["recipes", "list"], tmp_path, stdout=None, closing=">&- 2>&-")
    assert done.returncode == 0


def _cerank(words: list[str], lab: Path, stdout: IO[str] | None, closing: str = "") -> subprocess.CompletedProcess[str]:
    command = f"exec {shlex.quote(sys.executable)} -m cerank {shlex.join(words)} {closing}"
    environ = {**os.environ, "CERANK_LAB": str(lab)}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        timeout=300,
        check=False,
    )


def test_a_file_that_exists_is_overwritten_only_with_replace(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    check_new(path, replace=False)
    path.touch()
    check_new(path, replace=True)
    with pytest.raises(UsageError) as caught:
        check_new(path, replace=False)
    assert (caught.value.code, caught.value.where) == ("file-exists", str(path))
