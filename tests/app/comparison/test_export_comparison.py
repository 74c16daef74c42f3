"""Exports: the comparison's own figures, and nothing that a spreadsheet, LaTeX or a Markdown page would act upon."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from cerank.app.comparison import export_comparison
from cerank.errors import UsageError
from cerank.evaluation.compare import Comparison, Condition, Measured, System, Terms, compare

QUERIES = [f"q{number}" for number in range(12)]


def comparison(left: str = "bm25", right: str = "minilm", terms: Terms | None = None) -> Comparison:
    condition = Condition("pydocs/test", "bm25")
    values = [
        {query: (at % 5) / 5 for at, query in enumerate(QUERIES)},
        {query: (at % 5) / 5 + 0.1 + 0.01 * at for at, query in enumerate(QUERIES)},
    ]
    systems = [
        System(label=label, measured=(Measured(condition=condition, qrels_sha256="0", values={"nDCG@10": row}),))
        for label, row in zip((left, right), values, strict=True)
    ]
    return compare(systems, ["nDCG@10"], terms=terms or Terms())


def test_csv_holds_every_figure_in_full_precision() -> None:
    found = comparison()
    rows = list(csv.DictReader(io.StringIO(export_comparison.as_text(found, "csv"))))
    assert [row["system"] for row in rows] == ["bm25", "minilm"]
    assert float(rows[1]["difference"]) == found.rows[0].paired.difference
    assert float(rows[1]["p_corrected"]) == found.rows[0].p_corrected
    assert rows[1]["verdict"] == "better"


def test_csv_never_hands_a_spreadsheet_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(export_comparison.as_text(comparison("=1+1", "@SUM(A1)"), "csv"))))
    texts = [cell for row in rows for cell in row if not _is_number(cell)]
    assert "'=1+1" in texts
    assert not [cell for cell in texts if cell[:1] in {"=", "+", "-", "@"}]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_json_is_what_the_command_line_writes_too() -> None:
    rows = json.loads(export_comparison.as_text(comparison(), "json"))
    assert rows[1]["system"] == "minilm"
    assert rows[1]["against"] == "bm25"
    assert rows[1]["wins"] == 12


def test_latex_rounds_escapes_and_says_the_notes_as_comments() -> None:
    text = export_comparison.as_text(comparison(right="a_b & 100%\n\\input{x}"), "latex")
    assert r"a\_b \& 100\% \textbackslash{}input\{x\}" in text
    assert "\\toprule" in text
    assert "+0.1550" in text
    below = text.partition("\\end{tabular}\n")[2].splitlines()
    assert below
    assert all(line.startswith("% ") for line in below)


def test_markdown_is_one_table_with_its_notes_below() -> None:
    text = export_comparison.as_text(comparison(right="a|b"), "markdown")
    assert "a\\|b" in text
    assert "- 1 test, Holm's correction" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_with_every_pair_each_line_says_against_whom() -> None:
    table = export_comparison.short_table(comparison(terms=Terms(pairs="all")))
    assert table.title.endswith("every pair")
    assert table.rows[0][:2] == ("minilm", "bm25")


def test_with_several_conditions_each_line_says_where() -> None:
    found = comparison()
    other = Condition("other", "bm25")
    systems = [
        msgspec.structs.replace(
            system, measured=(*system.measured, msgspec.structs.replace(system.measured[0], condition=other))
        )
        for system in found.systems
    ]
    table = export_comparison.short_table(compare(systems, ["nDCG@10"]))
    assert {row[0] for row in table.rows} == {"pydocs/test", "other"}


@pytest.mark.parametrize(
    ("name", "form"), [("latex", "latex"), (".tex", "latex"), ("MD", "markdown"), (".json", "json")]
)
def test_a_form_is_known_by_name_and_by_ending(name: str, form: str) -> None:
    assert export_comparison.form_named(name) == form


def test_an_unknown_form_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="markdwon") as caught:
        export_comparison.form_named("markdwon")
    assert "markdown" in caught.value.hint


def test_the_suggested_name_is_plain_whatever_the_labels() -> None:
    assert export_comparison.suggested(comparison("../../etc", "Ünï/☃"), "latex") == "n-against-etc.tex"


def test_a_file_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = export_comparison.save("one", tmp_path / "a.tex")
    assert path.read_text() == "one"
    with pytest.raises(UsageError, match="exists"):
        export_comparison.save("two", path)
    export_comparison.save("two", path, replace=True)
    assert path.read_text() == "two"


@pytest.mark.parametrize("name", ["no/such/folder/a.tex", ".", "a\0b"])
def test_a_place_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export_comparison.save("x", tmp_path / name)
