"""The bench: the command line's comparison, whatever the baseline; queries side by side with grades and texts."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from cerank.app.comparison import comparison_session, comparisons
from cerank.app.comparison.comparison_session import ComparisonSession
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import Correction
from cerank.evaluation.verdicts.terms import Terms
from cerank.settings import Settings
from tests.refusals import refused


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")


@pytest.fixture
def named(tmp_path: Path) -> ComparisonRequest:
    """Three rankings of a small collection: good, bad, and one that lacks the last query."""
    folder = tmp_path / "collection"
    folder.mkdir()
    docs = [f"d{at}" for at in range(6)]
    (folder / "docs.jsonl").write_text("".join(f'{{"doc_id": "{d}", "text": "text of {d}"}}\n' for d in docs))
    (folder / "queries.tsv").write_text("".join(f"q{at}\twhat is {at}\n" for at in range(5)))
    (folder / "qrels").write_text("".join(f"q{at} 0 d{at} {1 + at % 2}\nq{at} 0 d5 0\n" for at in range(5)))
    orders = {
        "good.run": lambda q: [f"d{q}", *[d for d in docs if d != f"d{q}"]],
        "bad.run": lambda q: [*[d for d in docs if d != f"d{q}"], f"d{q}"][:5] + (["dX"] if q == 0 else []),
        "short.run": lambda q: docs[::-1] if q < 4 else [],
    }
    for name, order in orders.items():
        rows = [f"q{q} Q0 {d} {at} {100 - at} t\n" for q in range(5) for at, d in enumerate(order(q), 1)]
        (tmp_path / name).write_text("".join(rows))
    return ComparisonRequest(
        targets=tuple(str(tmp_path / name) for name in orders), measures=("nDCG@10", "RR@10"), dataset=str(folder)
    )


def test_the_first_target_is_the_baseline_as_on_the_command_line(settings: Settings, named: ComparisonRequest) -> None:
    made = ComparisonSession(settings, named)
    same = comparisons.compare(settings, named)
    assert msgspec.json.encode(made.compare("", Terms())) == msgspec.json.encode(same)


def test_another_baseline_is_the_same_as_naming_it_first(settings: Settings, named: ComparisonRequest) -> None:
    made = ComparisonSession(settings, named)
    bad = made.labels[1]
    turned = [named.targets[1], named.targets[0], named.targets[2]]
    same = comparisons.compare(settings, msgspec.structs.replace(named, targets=turned))
    assert msgspec.json.encode(made.compare(bad, Terms())) == msgspec.json.encode(same)


def test_differences_are_sorted_and_add_up_to_the_rows_mean(settings: Settings, named: ComparisonRequest) -> None:
    found = ComparisonSession(settings, named).compare("", Terms())
    for row in found.rows:
        listed = comparison_session.differences(found, row)
        values = [one.difference for one in listed]
        assert values == sorted(values, reverse=True)
        assert sum(values) / len(values) == pytest.approx(row.paired.difference)
        assert sum(value > 0 for value in values) == row.paired.wins
        assert all(one.right - one.left == pytest.approx(one.difference) for one in listed)


def test_a_query_is_seen_in_both_rankings_with_ranks_grades_and_texts(
    settings: Settings, named: ComparisonRequest
) -> None:
    made = ComparisonSession(settings, named)
    found = made.compare("", Terms())
    view = made.pair(made.labels[0], made.labels[1], found.conditions[0]).view("q0")
    assert view.text == "what is 0"
    assert [one.document for one in view.left][:2] == ["d0", "d1"]
    assert (view.left[0].grade, view.left[0].other, view.left[0].text) == (1, None, "text of d0")
    assert (view.left[1].grade, view.left[1].other) == (None, 1)
    last = view.right[-1]
    assert (last.document, last.other, last.text) == ("dX", None, "")
    assert "1 without text" in view.note


def test_without_a_dataset_there_are_ranks_and_grades_and_a_reason(
    settings: Settings, named: ComparisonRequest
) -> None:
    made = ComparisonSession(
        settings, ComparisonRequest(targets=named.targets, measures=named.measures, qrels=f"{named.dataset}/qrels")
    )
    found = made.compare("", Terms())
    view = made.pair(made.labels[0], made.labels[2], found.conditions[0]).view("q4")
    assert "name the dataset" in view.note
    assert view.left[0].grade == 1
    assert view.right == ()


def test_a_margin_chosen_on_screen_judges_and_says_when(settings: Settings, named: ComparisonRequest) -> None:
    terms, _ = comparison_session.terms_of({"margin": "0.9"}, named.measures)
    found = ComparisonSession(settings, named).compare("", terms, now="2026-11-23T10:00:00+00:00")
    margin = found.terms.margins["nDCG@10"]
    assert (margin.value, margin.source, margin.before) == (0.9, "dashboard", False)
    assert margin.declared == "2026-11-23T10:00:00+00:00"


def test_a_ranking_may_be_given_a_label(settings: Settings, named: ComparisonRequest) -> None:
    good, bad, _ = named.targets
    made = ComparisonSession(settings, msgspec.structs.replace(named, targets=(f"old={bad}", f"new={good}")))
    assert made.labels == ("old", "new")
    assert not comparison_session.target_error(settings.lab, f"x={good}", [])
    assert "compared already" in comparison_session.target_error(settings.lab, good, [good])
    assert "no run is called" in comparison_session.target_error(settings.lab, "nothing", [])


def test_one_ranking_is_no_comparison(settings: Settings, named: ComparisonRequest) -> None:
    with refused(UsageError, "too-few-systems", 2):
        ComparisonSession(settings, ComparisonRequest(targets=named.targets[:1], dataset=named.dataset))


def test_the_corrections_offered_are_those_there_are() -> None:
    assert set(comparison_session.CORRECTIONS) == set(typing.get_args(Correction))


def test_a_margin_is_for_all_measures_or_for_those_named() -> None:
    terms, wrong = comparison_session.terms_of(
        {"margin": "0.02", "correction": "bh", "pairs": "all", "confidence": "0.9"}, ["A", "B"]
    )
    assert not wrong
    assert {name: margin.value for name, margin in terms.margins.items()} == {"A": 0.02, "B": 0.02}
    assert (terms.correction, terms.pairs, terms.confidence) == ("bh", "all", 0.9)
    assert not next(iter(terms.margins.values())).before  # chosen with the numbers on screen
    terms, wrong = comparison_session.terms_of({"margin": "0.02, B = 1e-3"}, ["A", "B"])
    assert {name: margin.value for name, margin in terms.margins.items()} == {"A": 0.02, "B": 0.001}


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"margin": "-1"}, "margin"),
        ({"margin": "0"}, "margin"),
        ({"margin": "nan"}, "margin"),
        ({"margin": "C=0.1"}, "margin"),
        ({"confidence": "95"}, "confidence"),
        ({"confidence": "1"}, "confidence"),
        ({"correction": "tukey"}, "correction"),
        ({"pairs": "some"}, "pairs"),
    ],
)
def test_terms_that_cannot_be_are_refused_at_their_field(texts: dict[str, str], field: str) -> None:
    assert list(comparison_session.terms_of(texts, ["A", "B"])[1]) == [field]


def test_a_real_comparison_has_the_texts_of_real_passages(shared: Path, settings: Settings) -> None:
    folder = shared / "trec-dl-2020-top100"
    targets = tuple(str(folder / "runs" / name) for name in ("bm25.run", "tasb.run"))
    made = ComparisonSession(settings, ComparisonRequest(targets=targets, measures=("nDCG@10",), dataset=str(folder)))
    found = made.compare("", Terms())
    row = found.rows[0]
    worst = comparison_session.differences(found, row)[-1]
    view = made.pair(row.left, row.right, row.condition).view(worst.query)
    assert worst.difference < 0
    assert view.text
    assert all(one.text for one in (*view.left, *view.right))
