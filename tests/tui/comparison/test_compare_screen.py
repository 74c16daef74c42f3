"""The comparison on screen: the library's verdicts, another baseline and other terms by key, down to one query."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparison_session import QueryDifference
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.evaluation.verdicts.verdict import Verdict
from cerank.tui.app import CerankApp
from cerank.tui.common.dialogs import FormDialog
from cerank.tui.common.form_fields import FieldRow, LineInput
from cerank.tui.comparison.compare_screen import CompareScreen
from cerank.tui.comparison.comparison_table import VERDICTS, ComparisonTable, verdict
from cerank.tui.comparison.differences import DifferencesChart
from cerank.tui.comparison.query_list import QueryListScreen
from cerank.tui.comparison.query_screen import QueryScreen
from tests.tui.conftest import press, settle, text_of, whole_cells
from tests.tui.labs import CHAIN, LabFolder, recipe

SIZES = [(120, 36), (80, 24)]
QUERIES = 24


@pytest.fixture
def files(folder: LabFolder, tmp_path: Path) -> list[str]:
    """Three TREC run files over a collection in ./c: "low" puts the relevant document late, "high" mostly first."""
    home = tmp_path / "c"
    home.mkdir()
    docs = [f"d{at}" for at in range(12)]
    rows = [json.dumps({"doc_id": doc, "text": f"the text of {doc} [/b] \x1b[31m"}) + "\n" for doc in docs]
    (home / "docs.jsonl").write_text("".join(rows))
    (home / "queries.tsv").write_text("".join(f"q{at}\twhat is {at} \x9b2J\n" for at in range(QUERIES)))
    (home / "qrels").write_text("".join(f"q{at} 0 d{at % 12} 2\nq{at} 0 d{(at + 1) % 12} 0\n" for at in range(QUERIES)))
    places = {
        "low.run": lambda q: 3 + q % 5,
        "high.run": lambda q: 7 if q % 8 == 0 else 0,
        "same.run": lambda q: 3 + q % 5,
    }
    for name, place in places.items():
        lines = []
        for q in range(QUERIES):
            order = [doc for doc in docs if doc != f"d{q % 12}"]
            order.insert(place(q), f"d{q % 12}")
            if name == "same.run":  # another ranking, which scores the same
                order[-2:] = order[:-3:-1]
            lines += [f"q{q} Q0 {doc} {at} {100 - at} t\n" for at, doc in enumerate(order, 1)]
        (tmp_path / name).write_text("".join(lines))
    return [str(tmp_path / name) for name in places]


async def opened(pilot: Pilot[str], files: list[str], dataset: str = "./c") -> CompareScreen:
    app = pilot.app
    assert isinstance(app, CerankApp)
    screen = CompareScreen(app.lab, files)
    screen.named = msgspec.structs.replace(screen.named, measures=("nDCG@10", "RR@10"), dataset=dataset)
    app.push_screen(screen)
    await settle(pilot)
    return screen


async def fill(pilot: Pilot[str], **texts: str) -> None:
    """Fills in the fields of the question in front."""
    screen = pilot.app.screen
    assert isinstance(screen, FormDialog)
    for row in screen.query(FieldRow):
        if row.row.path in texts:
            row.query_one(LineInput).value = texts[row.row.path]
    await settle(pilot)


async def test_the_table_holds_the_command_lines_figures_and_the_verdict_in_words(
    app: CerankApp, files: list[str]
) -> None:
    same = comparisons.compare(
        app.lab.settings,
        ComparisonRequest(targets=tuple(files[:2]), measures=("nDCG@10", "RR@10"), dataset="./c"),
    )
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, files[:2])
        seen = text_of(app)
        for row in same.rows:
            assert f"{row.paired.difference:+.4f}" in seen
            assert f"[{row.low:+.4f}, {row.high:+.4f}]" in seen
            assert f"{row.paired.wins}/{row.paired.ties}/{row.paired.losses}" in seen
        assert "▲ better" in seen
        assert "◆ low" in seen
        assert "step-down max-t" in seen


def test_every_verdict_has_a_sign() -> None:
    assert set(get_args(Verdict)) == set(VERDICTS)
    signs = {verdict(text).plain.split()[0] for text in get_args(Verdict)}
    assert len(signs) == len(VERDICTS)
    assert verdict("a word of a later release").plain.startswith("·")


async def test_b_makes_the_row_the_baseline(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, files[:2])
        await press(pilot, "b")
        assert screen.baseline.startswith("high")
        seen = text_of(app)
        assert "▼ worse" in seen
        assert "against high" in seen


async def test_terms_are_asked_for_checked_and_shown_below_the_table(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, [files[0], files[2]])
        assert "? cannot tell" in text_of(app)
        await press(pilot, "t")
        await fill(pilot, margin="nDGC@10=0.1")
        await press(pilot, "enter")
        assert "nDGC@10 is" in text_of(app)
        await fill(pilot, margin="0.05")
        await press(pilot, "enter")
        assert app.screen is screen
        seen = text_of(app)
        assert "= equivalent" in seen
        assert "= equivalent †" in seen
        await press(pilot, "c", "c")
        assert "Benjamini and Hochberg" in text_of(app)


async def test_a_claim_that_the_data_cannot_bear_is_refused_in_place_and_taken_back(
    app: CerankApp, files: list[str]
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, files[:2])
        screen.typed["claim"] = "recipes"
        screen.typed["correction"] = "max-t"
        screen.compare()
        await settle(pilot)
        assert "✖ cannot compare" in text_of(app)
        assert "t options" in text_of(app)
        screen.typed |= {"claim": "checkpoints"}
        await press(pilot, "c")
        assert "▲ better" in text_of(app)


async def test_a_row_shows_its_differences_sorted_and_the_cursor_names_the_query(
    app: CerankApp, files: list[str]
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, files[:2])
        chart = app.screen.query_one(DifferencesChart)
        assert len(chart.rows) == QUERIES
        await press(pilot, "enter")
        assert chart.has_focus
        await press(pilot, "end")
        worst = chart.rows[-1]
        assert f"{QUERIES}/{QUERIES} query {worst.query}: {worst.difference:+.4f} loses" in text_of(app)
        await press(pilot, "home", "right")
        assert f"2/{QUERIES} query {chart.rows[1].query}" in text_of(app)


async def test_a_query_is_seen_in_both_rankings_with_its_texts(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, files[:2])
        await press(pilot, "enter", "end", "enter")
        assert isinstance(app.screen, QueryScreen)
        seen = text_of(app)
        assert "what is" in seen
        assert "● 2" in seen
        assert "the text of d" in seen
        assert "\x1b" not in seen
        first = app.screen.seen
        await press(pilot, "p")
        assert app.screen.seen is not None
        assert app.screen.seen is not first
        assert app.screen.seen.query == app.screen.listed[QUERIES - 2].query
        await press(pilot, "escape")
        assert isinstance(app.screen, CompareScreen)


async def test_the_queries_are_listed_searched_sorted_and_opened(
    app: CerankApp, files: list[str], tmp_path: Path
) -> None:
    async with app.run_test(size=(100, 36)) as pilot:
        await opened(pilot, files[:2])
        await press(pilot, "l")
        screen = app.screen
        assert isinstance(screen, QueryListScreen)
        assert len(screen.listed) == QUERIES
        assert whole_cells(screen.query_one(DataTable))
        changes = [entry.difference for entry in screen.listed]
        assert changes == sorted(changes, reverse=True)
        await press(pilot, "f", "o")
        assert screen.listed
        assert all(entry.difference < 0 for entry in screen.listed)
        await press(pilot, "f", "slash", *"is 1", "enter")
        assert {entry.query for entry in screen.listed} == {"q1", *(f"q{at}" for at in range(10, 20))}
        await press(pilot, "e")
        rows = list(csv.DictReader(io.StringIO((tmp_path / "cerank-queries.csv").read_text())))
        assert [row["query"] for row in rows] == [entry.query for entry in screen.listed]
        await press(pilot, "enter")
        assert isinstance(app.screen, QueryScreen)
        assert app.screen.seen is not None
        assert app.screen.seen.query == screen.listed[0].query
        await press(pilot, "y")
        assert app.clipboard == screen.listed[0].query


async def test_a_comparison_keeps_two_systems(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(100, 36)) as pilot:
        screen = await opened(pilot, files[:2])
        await press(pilot, "x")
        assert screen.shown is not None
        assert len(screen.named.targets) == 2


async def test_with_a_qrels_file_the_query_says_why_there_are_no_texts(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, files[:2], dataset="")
        assert "cannot compare" in text_of(app)
        assert "no relevance judgments" in text_of(app)
        await press(pilot, "d")
        await fill(pilot, qrels="c/qrels", dataset="c")
        await press(pilot, "enter")
        assert "not both" in text_of(app)
        await fill(pilot, dataset="")
        await press(pilot, "enter", "enter", "enter")
        assert isinstance(app.screen, QueryScreen)
        assert "no texts" in text_of(app)


async def test_a_run_file_is_added_by_path_and_taken_away_again(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, files[:2])
        await press(pilot, "a")
        await fill(pilot, target="nowhere.run")
        await press(pilot, "enter")
        assert "no such file" in text_of(app)
        await fill(pilot, target="same.run")
        await press(pilot, "enter")
        assert app.screen is screen
        table = screen.query_one(ComparisonTable)
        assert table.row_count == 6
        table.move_cursor(row=2)
        await press(pilot, "x")
        assert table.row_count == 4
        assert not [line for line in text_of(app).splitlines() if line.split()[:1] == ["same"]]


async def test_runs_of_the_lab_are_compared_with_their_first_stage(app: CerankApp, folder: LabFolder) -> None:
    one = folder.finished(folder.started(folder.run("one"), steps=10, stage=1))
    async with app.run_test(size=(120, 36)) as pilot:
        app.open_compare([f"{one.name}:first-stage", one.name])
        await settle(pilot)
        assert isinstance(app.screen, CompareScreen)
        seen = text_of(app)
        assert "against one:first-stage" in seen
        assert "nDCG@10" in seen


async def test_of_several_first_stages_one_is_shown_at_a_time(app: CerankApp, folder: LabFolder) -> None:
    one = folder.finished(folder.started(folder.run("one", first_stages=["bm25", "other"]), steps=10, stage=1))
    test = recipe().data.test[0]
    for system in ("first-stage", *CHAIN):
        shutil.copy(one.ranking(system, test, "bm25"), one.ranking(system, test, "other"))
    async with app.run_test(size=(120, 36)) as pilot:
        app.open_compare([f"{one.name}:first-stage", one.name])
        await settle(pilot)
        assert "over bm25" in text_of(app)
        assert "1 of 2, v next" in text_of(app)
        first = app.screen.query_one(ComparisonTable)
        lines = first.row_count
        assert first.label == "one"
        await press(pilot, "v")
        assert "2 of 2, v next" in text_of(app)
        assert first.row_count == lines
        assert "over other" in text_of(app).splitlines()[1]


async def test_one_target_or_none_says_what_to_do(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, [])
        assert "Nothing to compare yet" in text_of(app)
        await press(pilot, "e", "y", "b", "x", "c", "enter")
        assert isinstance(app.screen, CompareScreen)
        await press(pilot, "a")
        await fill(pilot, target=files[0])
        await press(pilot, "enter")
        assert "Only " in text_of(app)


async def test_a_run_that_has_no_rankings_is_a_reason_in_place(app: CerankApp, folder: LabFolder) -> None:
    folder.run("young")
    folder.run("younger")
    async with app.run_test(size=(120, 36)) as pilot:
        app.open_compare(["young", "younger"])
        await settle(pilot)
        assert "✖ cannot compare" in text_of(app)
        assert "young" in text_of(app)


@pytest.mark.parametrize("ending", [".tex", ".md", ".csv", ".tsv", ".json"])
async def test_the_comparison_is_exported_in_the_form_of_the_ending(
    app: CerankApp, files: list[str], tmp_path: Path, ending: str
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, files[:2])
        await press(pilot, "e")
        await fill(pilot, path=str(tmp_path / f"out{ending}"))
        await press(pilot, "enter")
    text = (tmp_path / f"out{ending}").read_text()
    found = comparisons.compare(
        app.lab.settings,
        ComparisonRequest(targets=tuple(files[:2]), measures=("nDCG@10", "RR@10"), dataset="./c"),
    )
    exact = found.rows[0].paired.difference
    if ending == ".json":
        assert json.loads(text)["rows"][1]["difference"] == exact
    elif ending in {".csv", ".tsv"}:
        rows = list(csv.DictReader(io.StringIO(text), delimiter="," if ending == ".csv" else "\t"))
        assert float(rows[1]["difference"]) == exact
    else:
        assert f"{exact:+.4f}" in text


async def test_an_ending_without_a_form_is_refused_and_nothing_is_written(
    app: CerankApp, files: list[str], tmp_path: Path
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, files[:2])
        await press(pilot, "e")
        await fill(pilot, path=str(tmp_path / "out.docx"))
        await press(pilot, "enter")
        assert isinstance(app.screen, FormDialog)
        assert "no form is called" in text_of(app)
    assert not (tmp_path / "out.docx").exists()


async def test_y_copies_the_table_as_markdown(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(pilot, files[:2])
        await press(pilot, "y")
        assert "| system | measure |" in app.clipboard
        await press(pilot, "Y")
        assert "\\toprule" in app.clipboard


async def test_a_later_request_wins_over_one_still_at_work(app: CerankApp, files: list[str]) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(pilot, files[:2])
        screen.measure_by(dataset="./nowhere")
        screen.measure_by(dataset="./c", targets=tuple(files))
        await settle(pilot)
        assert screen.query_one(ComparisonTable).row_count == 6


@pytest.mark.parametrize("size", [(30, 10), (200, 60), (80, 24)])
@pytest.mark.parametrize("count", [0, 1, 2, 43, 1000])
async def test_the_chart_draws_any_number_of_queries_at_any_size(
    app: CerankApp, count: int, size: tuple[int, int]
) -> None:
    rows = [QueryDifference(f"q{at}", 0.5, 0.5 + value, value) for at, value in enumerate(_falling(count))]
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        chart = DifferencesChart(id="chart")
        await app.screen.mount(chart)
        chart.show(rows, "left", "right", "title")
        chart.focus()
        await pilot.press("end", "pageup", "left")
        await pilot.pause()
        assert chart.at == max(0, count - 12)
        for y in range(chart.content_size.height):
            assert chart.render_line(y).cell_length == chart.content_size.width


async def test_gains_stand_above_the_line_and_losses_below(app: CerankApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        chart = DifferencesChart(id="chart")
        await app.screen.mount(chart)
        chart.show(
            [QueryDifference("a", 0, 1, 1.0), QueryDifference("b", 0, 0, 0.0), QueryDifference("c", 1, 0, -1.0)],
            "l",
            "r",
            "t",
        )
        await pilot.pause()
        drawn = [chart.render_line(y).text for y in range(chart.content_size.height)]
        first, last = drawn[1], drawn[-3]
        assert first.startswith(" +1.000┤████ ")
        assert last.startswith(" -1.000┤")
        assert last[8:12] == "    "
        assert last[16:20] == "████"


def _falling(count: int) -> list[float]:
    return [1.0 - 2.0 * at / max(count - 1, 1) for at in range(count)]


async def test_every_binding_has_an_id_and_no_key_that_multiplexers_take(app: CerankApp) -> None:
    taken = {f"ctrl+{letter}" for letter in "basqzjimh"}
    for screen in (CompareScreen, QueryScreen, FormDialog, DifferencesChart, ComparisonTable):
        for binding in screen.BINDINGS:
            assert binding.id  # type: ignore[union-attr]
            assert not taken & set(binding.key.split(","))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("state", "size", "color"),
    [
        ("table", SIZES[0], True),
        ("table", SIZES[1], True),
        ("bars", SIZES[0], False),
        ("query", SIZES[0], True),
        ("query", SIZES[1], True),
        ("options", SIZES[0], True),
        ("error", SIZES[1], True),
    ],
    ids=lambda value: f"{value[0]}x{value[1]}" if isinstance(value, tuple) else None,
)
def test_the_comparison_looks_as_it_did(
    folder: LabFolder,
    files: list[str],
    size: tuple[int, int],
    state: str,
    color: bool,
    snap_compare: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(folder.lab, poll_seconds=0)

    async def go(pilot: Pilot[str]) -> None:
        await settle(pilot)
        given = {"empty": [], "error": ["low.run", "high.run"]}.get(state, ["low.run", "high.run", "same.run"])
        await opened(pilot, given, "" if state == "error" else "./c")
        keys = {"bars": ["enter", "end", "left"], "query": ["enter", "enter"], "options": ["t"]}
        await press(pilot, *keys.get(state, []))

    assert snap_compare(app, terminal_size=size, run_before=go)


async def test_without_color_every_state_is_a_sign_or_a_word(
    folder: LabFolder, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = CerankApp(folder.lab, poll_seconds=0)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, files)
        await press(pilot, "enter", "end")
        seen = text_of(app)
        for sign in ("◆ low", "◆ baseline", "▲ better", "? cannot tell", "▲▲", "loses"):
            assert sign in seen
