"""Every table that the command line draws, at every width: no cell is cut, and what has no room goes whole."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from cerank.app.checks import doctor
from cerank.cli import output, terminal_table
from cerank.cli.commands import bench
from cerank.cli.terminal_table import Style
from cerank.cli.typer_app import app
from cerank.recipes import render
from cerank.runs.layout import QueueFolder
from cerank.text.safe_text import shown
from cerank.text.table_data import Column, Kind, Table, Value, fitting, rounded
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan

WIDTHS = (60, 80, 100, 120, 140, 200)
LONG = {  # by the column's key: the longest real names
    "system": "cross-encoder/ms-marco-MiniLM-L-6-v2:contrastive",
    "against": "castorini/monobert-large-msmarco-finetune-only",
    "base": "cross-encoder/ms-marco-MiniLM-L-6-v2",
    "hub_id": "sentence-transformers/multi-qa-mpnet-base-dot-v1",
    "dataset": "msmarco-passage/trec-dl-2020/judged",
    "name": "msmarco-document/trec-dl-hard/fold5",
    "left": "msmarco-passage/train/triples-small[:90%]",
    "label": "the second try with a lower learning rate and twice the negatives",
    "now": "re-rank contrastive-then-distill on msmarco-passage/trec-dl-2020/judged 4895/6980, 1:02:03 left",
    "stage": "contrastive-with-hard-negatives",
    "verdict": "different but negligible",
    "interval": "[-0.0123, +0.0456]",
    "wtl": "1148/4480/1352",
}
COMMANDS = (
    ["ps"],
    ["show", "one"],
    ["compare", "one", "two"],
    ["compare", "one:contrastive", "two", "--pairs", "all", "--secondary", "--reasons"],
    ["queue"],
    ["verify", "one"],
    ["doctor", "--all"],
    ["run", "-r", "both.toml", "--dry-run", "--pairs-per-second", "100"],
    ["run", "-r", "both.toml", "--seeds", "1,2", "--dry-run", "--pairs-per-second", "100"],
    ["power", "both.toml", "--difference", ".01"],
    ["recipes", "list"],
    ["recipes", "matrices"],
    ["recipes", "losses"],
    ["datasets"],
    ["bases"],
    ["config", "show"],
    ["data", "formats"],
    ["data", "formats", "tevatron"],
)


@pytest.fixture(scope="module")
def drawn_tables(tmp_path_factory: pytest.TempPathFactory) -> list[Table]:
    """Each table that the commands above draw over a lab of two finished runs."""
    folder = tmp_path_factory.mktemp("widths")
    plan, given_settings = small_plan(folder)
    for seed, label in enumerate(("one", "two"), 1):
        made_run(given_settings, changed(plan, seed=seed), label)
    (folder / "both.toml").write_text(render(plan.recipe))
    QueueFolder(given_settings.lab).path.mkdir(parents=True)
    seen: dict[tuple[str, tuple[str, ...]], Table] = {}

    def noted(table: Table, style: Style) -> str:
        seen[table.name, tuple(column.key for column in table.columns)] = table
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(terminal_table, "table_as_text", noted)
        patch.setattr(doctor, "processor_findings", list)  # what is measured changes no column
        patch.setattr(doctor, "is_on_this_machine", lambda base: False)
        for key, value in (("LAB", given_settings.lab), ("CACHE", given_settings.cache), ("FORMAT", "table")):
            patch.setenv(f"CERANK_{key}", str(value))
        for words in COMMANDS:
            found = CliRunner().invoke(app, words)
            assert found.exception is None or isinstance(found.exception, SystemExit), (words, found.exception)
    own = [Table("speed", bench.SPEED_COLUMNS, ()), Table("machine", bench.MACHINE_COLUMNS, ())]
    return [*seen.values(), *own]


def stretched(table: Table) -> Table:
    """The table with another row, of the longest real names and figures."""
    figures: dict[Kind, Value] = {"number": 123456.75, "signed": -0.0123, "p": 0.0004, "percent": 1.0, "seconds": 36123}
    row: list[Value] = []
    for place, column in enumerate(table.columns):
        figure = figures.get(column.kind)
        row.append(LONG.get(column.key, table.rows[0][place] if table.rows and figure is None else figure))
    return msgspec.structs.replace(table, rows=(*table.rows, tuple(row)))


def hidden(text: str, table: Table) -> set[int]:
    """The places of the columns that the line under the table names."""
    found = re.search(r"\+(\d+) columns?: (.*?); --wide shows (?:it|them)", " ".join(text.split()))
    if found is None:
        return set()
    gone = {
        place
        for place, column in enumerate(table.columns)
        if f", {shown(column.heading) or column.key}, " in f", {found[2]}, "
    }
    assert len(gone) == int(found[1])
    return gone


def said(text: str) -> Counter[str]:
    """The words of a text, those before a colon without it, too: "key: value" is how a narrow row is told."""
    words = text.split()
    return Counter(words) + Counter(word.removesuffix(":") for word in words if word.endswith(":"))


def check(table: Table, width: int) -> str:
    text = terminal_table.table_as_text(table, Style(width, more="--wide"))
    lines = text.splitlines()
    gone = hidden(text, table)
    words = said(text)
    wanted: Counter[str] = Counter()
    longest = 0
    for row in table.rows:
        for place, (value, column) in enumerate(zip(row, table.columns, strict=True)):
            cell = shown(rounded(value, column))
            longest = max([longest, *map(cell_len, cell.split())])
            if place not in gone:
                wanted.update(cell.split())
                if column.kind != "text" and cell_len(cell) <= width // 2:
                    assert any(cell in line for line in lines), (table.name, width, column.key, cell)
    assert not wanted - words, (table.name, width, wanted - words)
    assert all(table.columns[place].priority for place in gone), (table.name, width)
    too_long = [line for line in lines if cell_len(line) > width]
    assert all(max(map(cell_len, line.split())) + len(line) - len(line.lstrip()) > width for line in too_long), too_long
    return text


@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_of_every_command_is_whole(drawn_tables: list[Table], width: int) -> None:
    assert len(drawn_tables) > 20
    for table in drawn_tables:
        if table.rows:
            check(table, width)
        check(stretched(table), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_keeps_system_mean_difference_interval_and_verdict(drawn_tables: list[Table], width: int) -> None:
    for table in drawn_tables:
        if table.name == "comparison":
            for one in (table, stretched(table)):
                gone = hidden(check(one, width), one)
                kept = {column.key for place, column in enumerate(one.columns) if place not in gone}
                assert {"system", "mean", "difference", "verdict"} <= kept
                assert "interval" in kept or "[interval]" in one.columns[_place(one, "difference")].heading


def _place(table: Table, key: str) -> int:
    return [column.key for column in table.columns].index(key)


def test_the_shipped_comparison_needs_no_more_than_80_cells(drawn_tables: list[Table]) -> None:
    """Its systems are first-stage, contrastive and distill; both of its forms stay tables, each row a line."""
    told = {"system": "contrastive", "measure": "nDCG@10", "mean": 0.4348, "difference": -0.0123, "verdict": "better"}
    told |= {"interval": "[-0.0624, -0.0056]", "wtl": "148/448/135", "p": 0.01, "p_corrected": 0.02, "effect": 0.1}
    forms = [table for table in drawn_tables if table.name == "comparison"]
    own = next(table for table in forms if "[interval]" in table.columns[_place(table, "difference")].heading)
    asked = next(table for table in forms if all(column.key != "against" for column in table.columns))
    kept = ["contrastive", "nDCG@10", "0.4348", "-0.0123", "[-0.0624,", "-0.0056]", "0.020", "better"]
    assert _line_of(asked, told) == kept
    told |= {"against": "first-stage", "difference": "-.0123 [-.0624, -.0056]"}
    kept = ["contrastive", "first-stage", "nDCG@10", "0.4348", "-.0123", "[-.0624,", "-.0056]", "better"]
    assert _line_of(own, told) == kept


def _line_of(table: Table, told: Mapping[str, Value]) -> list[str]:
    """Return the words of the only row, drawn in 80 cells."""
    columns = [column for column in table.columns if column.key not in {"dataset", "first_stage", "judged"}]
    one = Table("comparison", tuple(columns), (tuple(told[column.key] for column in columns),))
    lines = check(one, 80).splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    (line,) = [line for line in lines if line.startswith("contrastive")]
    return line.split()


def test_a_table_too_narrow_for_its_columns_is_a_block_a_row() -> None:
    columns = (Column("a", "A", "name"), Column("b", "B", "number"), Column("c", "", "text"))
    table = Table("t", columns, (("x" * 30, 1, ""), ("y", None, "two words")))
    assert terminal_table.table_as_text(table, Style(30)) == f"A:\n  {'x' * 30}\nB: 1\n\nA: y\ntwo words\n"


def test_wide_draws_every_column_and_the_line_below_says_how_to_see_the_others() -> None:
    columns = (Column("a", "first"), Column("b", "second", priority=1), Column("c", "", priority=2))
    table = Table("t", columns, (("word " * 3, "x" * 30, "y" * 30),))

    def text_of(wide: bool | None) -> str:
        page = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "50")
            output.emit(table, "table", page, wide=wide)
        return page.getvalue()

    assert "+1 column: c; --wide shows it" in text_of(False)
    assert "+1 column: c; a wider terminal or --format tsv shows it" in " ".join(text_of(None).split())
    assert "y" * 30 in text_of(True)
    assert "+1 column" not in text_of(True)


def test_columns_go_by_priority_and_of_equals_the_rightmost_first() -> None:
    columns = [Column(key, key, priority=number) for key, number in (("a", 0), ("b", 2), ("c", 1), ("d", 2), ("e", 0))]
    kept = ["".join(columns[place].key for place in fitting(columns, [4] * 5, width, 1)) for width in range(25)]
    assert list(dict.fromkeys(kept)) == ["ae", "ace", "abce", "abcde"]
    assert [len(keys) * 5 - 1 <= width for width, keys in enumerate(kept) if width >= 9] == [True] * 16


CELLS = st.text(st.characters(codec="utf-8"), max_size=40)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(("text", "name", "number"))


def tables() -> Iterator[st.SearchStrategy[Table]]:
    for count in (1, 2, 3, 5):
        places = [st.builds(Column, st.just(f"k{at}"), CELLS, KINDS, priority=st.integers(0, 3)) for at in range(count)]
        rows = st.lists(st.tuples(*([CELLS] * count)), max_size=4).map(tuple)
        yield st.builds(Table, st.just("t"), st.tuples(*places), rows)


@given(st.one_of(*tables()), st.integers(1, 120))
@settings(deadline=None)
def test_no_word_of_any_table_is_cut_at_any_width(table: Table, width: int) -> None:
    text = terminal_table.table_as_text(table, Style(width, more="M"))
    drawn_words = said(text)
    found = (
        re.search(r"\+\d+ columns?:", " ".join(text.split()))
        if any(column.priority for column in table.columns)
        else None
    )
    always = [place for place, column in enumerate(table.columns) if not column.priority or found is None]
    wanted = Counter(word for row in table.rows for place in always for word in shown(row[place]).split())
    assert not wanted - drawn_words


def test_what_explains_a_column_goes_with_it() -> None:
    columns = (
        Column("a", "system"),
        Column("d", "d_z", "number", priority=2),
        Column("w", "W/T/L", "name", priority=1),
    )
    notes = ("d_z: a mean over its sd; W/T/L: queries won", "d_z: alone", "3 comparisons: all of them")
    table = Table("x", columns, (("a" * 20, 0.5, "10/20/30"),), "", notes)
    narrow = terminal_table.table_as_text(table, Style(width=34))
    assert "d_z: " not in narrow
    assert "W/T/L: queries won" in narrow
    assert "3 comparisons: all of them" in narrow
    assert "d_z: a mean" in terminal_table.table_as_text(table, Style(width=80))
