"""Exports: the comparison's own figures, and nothing that a spreadsheet, LaTeX or a Markdown page would act upon."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import msgspec
import pytest

from cerank.app.comparison import export_comparison
from cerank.errors import UsageError
from cerank.evaluation.compare import Comparison, Condition, Measured, System, compare
from cerank.evaluation.comparison_rows import FEW_MARK, family
from cerank.evaluation.verdicts.terms import Margin, Terms
from tests.refusals import refused

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


@pytest.mark.parametrize(("correction", "decides", "other"), [("holm", "95 %", "90 %"), ("max-t", "95 %", "")])
def test_an_interval_by_which_equivalence_is_shown_names_its_level_beside_others(correction, decides, other) -> None:
    """By the maximum statistic both tests share one interval, so that there is one level."""
    condition, queries = Condition("pydocs/test", "bm25"), [f"q{at}" for at in range(40)]
    values = {
        "base": dict.fromkeys(queries, 0.5),
        "same": {query: 0.5 + 0.001 * (-1) ** at for at, query in enumerate(queries)},
        "more": {query: 0.6 + 0.001 * (at % 5) for at, query in enumerate(queries)},
    }
    systems = [
        System(label=label, measured=(Measured(condition=condition, qrels_sha256="0", values={"nDCG@10": row}),))
        for label, row in values.items()
    ]
    terms = Terms(correction=correction, margins={"nDCG@10": Margin(value=0.05, before=True)})
    found = compare(systems, ["nDCG@10"], terms=terms)
    assert [row.verdict for row in found.rows] == ["equivalent", "better"]
    table = export_comparison.short_table(found)
    keys = [column.key for column in table.columns]
    assert decides in table.columns[keys.index("judged")].heading
    same, more = (str(row[keys.index("judged")]) for row in table.rows[1:])
    assert other in same
    assert "%" not in more
    assert ("%" in same) is bool(other)
    (by_stage,) = export_comparison.by_stage(found)
    cells = [str(row[4]) for row in by_stage.rows]
    assert [cell.endswith("%") for cell in cells] == [False, bool(other), False]
    assert ("marked" in by_stage.notes[0]) is bool(other)
    assert decides in by_stage.notes[0]


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


def test_json_has_one_shape_with_and_without_secondary_tests() -> None:
    for is_asked in (False, True):
        found = comparison(terms=Terms(with_secondary=is_asked))
        document = json.loads(export_comparison.as_text(found, "json"))
        assert list(document) == ["meta", "rows", "secondary", "pooled", "notes"]
        assert len(document["secondary"]) == is_asked
        row = document["rows"][1]
        assert (row["system"], row["against"], row["wins"], row["judged_level"]) == ("minilm", "bm25", 12, 0.05)
        assert (row["sd"], row["df"], row["basis"]) == (found.rows[0].paired.sd, 11, "t")
        assert row["t"] == pytest.approx(found.rows[0].paired.t)
        assert row["error"] == pytest.approx(found.rows[0].paired.sd / 12**0.5)
        assert document["meta"]["rankings"][0]["qrels_sha256"] == "0"
        assert document["notes"]


def test_latex_rounds_escapes_and_keeps_its_notes_in_the_table() -> None:
    text = export_comparison.as_text(comparison(right="a_b & 100%\n\\input{x}"), "latex")
    assert r"a\_b \& 100\% \textbackslash{}input\{x\}" in text
    assert "\\toprule" in text
    assert "+0.1550" in text
    notes = text.partition("\\begin{tablenotes}\\footnotesize\n")[2].partition("\n\\end{tablenotes}")[0].splitlines()
    assert len(notes) >= 3
    assert all(line.startswith("\\item ") for line in notes)
    assert any(r"5\,\%" in line or r"5 \%" in line for line in notes)
    assert text.count("\\begin{") == text.count("\\end{") == 4
    assert "$d_z$" in text


def test_latex_has_a_dagger_for_a_late_margin_and_minus_signs_in_intervals() -> None:
    late = Terms(margins={"nDCG@10": Margin(value=0.3)})
    text = export_comparison.as_text(comparison("minilm", "bm25", late), "latex")
    assert ".3 †" in text
    assert "†: " in text
    flipped = comparison(terms=late)
    systems = flipped.systems[::-1]
    text = export_comparison.as_text(compare(systems, ["nDCG@10"], terms=late), "latex")
    assert "{[}$-$0." in text
    assert "[-" not in text
    early = Terms(margins={"nDCG@10": Margin(value=0.3, before=True)})
    assert "†" not in export_comparison.as_text(comparison(terms=early), "latex")


@pytest.mark.parametrize("n", [2, 4, 5, 6, 9, 12, 40])
@pytest.mark.parametrize("differing", [1, 3, 5, 6, 9, 40])
@pytest.mark.parametrize("margin", [None, 0.05])
def test_table_json_and_sentence_agree_where_few_queries_differ_or_all_by_the_same(
    n: int, differing: int, margin: float | None
) -> None:
    left = {f"q{at}": 0.25 for at in range(n)}
    right = {query: 0.5 if at < differing else 0.25 for at, query in enumerate(left)}
    systems = [
        System(label=label, measured=(Measured(condition=Condition("d"), qrels_sha256="0", values={"nDCG@10": row}),))
        for label, row in (("a", left), ("b", right))
    ]
    terms = Terms(margins={"nDCG@10": Margin(value=margin)} if margin else {}, with_secondary=True)
    found = compare(systems, ["nDCG@10"], terms=terms)
    row = json.loads(export_comparison.as_text(found, "json"))["rows"][1]
    k = min(n, differing)
    if k < 10 or k == n:
        assert row["p"] == pytest.approx(2.0 ** (1 - k))
        assert row["basis"] == "exact sign flips"
    assert 0 < row["p"] <= row["p_corrected"]
    assert (row["p_corrected"] <= 0.05) == (row["verdict"] in {"better", "different but negligible"})
    assert -0.25 <= row["low"] <= row["difference"] <= row["high"] <= 0.75
    assert not (row["low"] > 0 and row["verdict"] in {"cannot tell", "equivalent"})
    cell = export_comparison.short_table(found).rows[1][-1]
    assert str(cell).startswith("better" if row["verdict"] == "different but negligible" else row["verdict"])
    first = {"better": "Yes:", "cannot tell": "These"}.get(row["verdict"], "No:")
    assert row["answer"].removeprefix("Is b better than a? ").startswith(first)
    if k < 6:
        assert row["verdict"] in {"cannot tell", "equivalent"}
        notes = " ".join(export_comparison.short_table(found).notes)
        assert ("the smallest p that flipped signs can give" in notes) == (row["verdict"] == "cannot tell")
    assert "nan" not in export_comparison.as_text(found, "markdown")


def test_markdown_is_one_table_with_its_notes_below() -> None:
    text = export_comparison.as_text(comparison(right="a|b"), "markdown")
    assert "a\\|b" in text
    assert re.search(r"^- 1 comparison: .*5 %", text, re.MULTILINE)
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
    with refused(UsageError, "unknown-format", "markdwon") as caught:
        export_comparison.form_named("markdwon")
    assert "markdown" in caught.value.hint


def test_the_suggested_name_is_plain_whatever_the_labels() -> None:
    assert export_comparison.suggested(comparison("../../etc", "Ünï/☃"), "latex") == "n-against-etc.tex"


def test_a_file_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = export_comparison.save("one", tmp_path / "a.tex")
    assert path.read_text() == "one"
    with refused(UsageError, "file-exists"):
        export_comparison.save("two", path)
    export_comparison.save("two", path, replace=True)
    assert path.read_text() == "two"


@pytest.mark.parametrize("name", ["no/such/folder/a.tex", ".", "a\0b"])
def test_a_place_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export_comparison.save("x", tmp_path / name)


def differing_in(**counts: int) -> Comparison:
    """A comparison of systems with one baseline, each of which differs from it in so many of 30 queries."""
    condition, queries = Condition("pydocs/test", "bm25"), [f"q{at}" for at in range(30)]
    values = {"base": dict.fromkeys(queries, 0.5)}
    for label, count in counts.items():
        values[label] = {
            query: 0.5 - (0.03 + 0.001 * at) * (-1) ** (at % 3 == 2) if at < count else 0.5
            for at, query in enumerate(queries)
        }
    systems = [
        System(label=label, measured=(Measured(condition=condition, qrels_sha256="0", values={"nDCG@10": row}),))
        for label, row in values.items()
    ]
    return compare(systems, ["nDCG@10"])


@pytest.mark.parametrize("counts", [{"one": 1, "two": 2, "many": 12}, {"one": 1, "two": 2}])
def test_rows_of_few_differing_queries_count_among_the_undecided(counts: dict[str, int]) -> None:
    found = differing_in(**counts)
    assert {row.verdict for row in found.rows} == {"cannot tell"}
    (note,) = [note for note in export_comparison.short_table(found).notes if "undecided" in note]
    assert f"{len(counts)} of {len(counts)}" in note
    assert ("2 of them" in note) is ("many" in counts)


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"one": 20, "two": 25}, {"max-t"}),
        ({"one": 1, "two": 25}, {"max-t", "min-p"}),
        ({"one": 1, "two": 2}, {"min-p"}),
    ],
)
def test_the_note_on_flips_says_whether_rows_are_compared_by_t_or_by_p(counts: dict[str, int], names: set[str]) -> None:
    found = differing_in(**counts)
    assert found.method == "max-t"
    for is_short in (False, True):
        note = family(found, is_short=is_short)
        assert {name for name in ("max-t", "min-p") if name in note} == names


def test_intervals_of_few_differing_queries_are_marked_for_people_alone() -> None:
    found = differing_in(one=1, two=2, many=25)
    table, mark = export_comparison.short_table(found), FEW_MARK
    keys = [column.key for column in table.columns]
    marked = {str(row[keys.index("system")]): mark in str(row[keys.index("interval")]) for row in table.rows}
    assert marked == {"base": False, "one": True, "two": True, "many": False}
    assert [note.startswith(mark) for note in table.notes].count(True) == 1
    (screen,) = export_comparison.by_stage(found)
    assert [mark in str(row[4]) for row in screen.rows] == [False, True, True, False]
    assert any(note.startswith(mark) for note in screen.notes)
    plain = export_comparison.short_table(found, is_marked=False)
    assert mark not in f"{plain.rows} {plain.notes}"
    assert all(mark not in export_comparison.as_text(found, form) for form in ("csv", "json"))
    assert not any(mark in note for note in export_comparison.short_table(differing_in(many=25)).notes)


def test_an_end_of_0_has_no_sign_of_a_loss() -> None:
    found = differing_in(two=2)
    (row,) = found.rows
    assert (row.paired.losses, row.judgment.p) == (2, 0.5)
    assert all(math.copysign(1, end) == 1 for end in (row.high, row.judgment.high))
    assert "-0.0000" not in str(export_comparison.short_table(found).rows)
