"""Guides in the terminal: a list, one of them with colors and a pager, or plain Markdown for everything else."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from cerank import guides
from cerank.cli.guide_tables import GuideMarkdown, column_widths
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from tests.cli.test_output import in_terminal


def test_the_list_has_a_title_and_a_summary_of_one_line_for_every_guide():
    rows = json.loads(CliRunner().invoke(app, ["guide", "--json"]).stdout)
    assert [row["guide"] for row in rows] == list(guides.ORDER)
    for guide in guides.guides():
        assert guide.markdown.startswith(f"# {guide.title}\n\n{guide.summary}\n\n")
        assert guide.summary.endswith(".")


def test_every_markdown_file_of_the_package_is_a_guide_of_the_list():
    assert {path.stem for path in guides.FOLDER.glob("*.md")} == set(guides.ORDER)


@pytest.mark.parametrize("name", guides.ORDER)
def test_in_a_pipe_a_guide_is_its_markdown_file(name):
    done = CliRunner().invoke(app, ["guide", name])
    assert done.stdout == (Path(guides.__file__).parent / f"{name}.md").read_text(encoding="utf8")


def test_an_unknown_guide_is_an_error_with_the_nearest_name():
    with pytest.raises(UsageError) as caught:
        guides.find("verdict")
    assert "'verdicts'" in caught.value.hint
    assert "`cerank guide`" in caught.value.hint


def test_a_format_is_for_the_list_alone():
    done = CliRunner().invoke(app, ["guide", "verdicts", "--json"])
    assert isinstance(done.exception, UsageError)


SHOW = "import os, sys; os.dup2(1, 0); sys.argv = ['cerank', 'guide', 'verdicts']; from cerank.cli import main; main()"


def test_on_a_terminal_a_guide_goes_through_the_pager_without_marks_of_markdown(tmp_path):
    pager = tmp_path / "pager.py"
    pager.write_text("import sys; print('PAGED'); print(sys.stdin.read())")
    seen = in_terminal(SHOW, PAGER=f"{sys.executable} {pager}")
    assert "PAGED" in seen
    assert "\x1b[" in seen.split("PAGED")[1]
    text = re.sub(r"\x1b\[[\d;]*m", "", seen)
    assert "Verdicts" in text
    assert "## " not in text
    assert all(len(line.rstrip()) <= 60 for line in text.split("PAGED")[1].splitlines())


def test_without_color_nothing_but_text_reaches_the_pager(tmp_path):
    pager = tmp_path / "pager.py"
    pager.write_text("import sys; print(sys.stdin.read())")
    seen = in_terminal(SHOW, PAGER=f"{sys.executable} {pager}", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", seen)


@pytest.mark.parametrize("name", guides.ORDER)
def test_no_word_of_a_table_is_cut_at_eighty_columns(name):
    markdown = guides.find(name).markdown
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(GuideMarkdown(markdown))
    drawn = set(console.export_text().split())
    tables = [line for line in markdown.splitlines() if line.startswith("|") and set(line) - set("|- :")]
    cells = [cell for line in tables for cell in line.replace("\\|", " ").strip("|").split("|")]
    words = {word for cell in cells for word in re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", cell).split()}
    plain = {word for word in words if re.fullmatch(r"[\w.,:/-]+", word)}  # a regular expression may hold "|" and "*"
    assert not plain - drawn


def test_columns_take_their_longest_word_and_share_what_is_left():
    rows = [[Text("a"), Text("one two three")], [Text("longest"), Text("x")]]
    assert column_widths(rows, 30) == [7, 13]
    assert column_widths(rows, 14) == [7, 7]
    assert column_widths(rows, 6) == [3, 3]
