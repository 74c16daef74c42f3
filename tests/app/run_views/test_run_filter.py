from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.app.run_views.run_filter import parse
from cerank.app.run_views.run_list import KEYS, ordered
from cerank.app.run_views.run_monitor import LabMonitor, RunEntry
from cerank.errors import UsageError
from tests.refusals import refused
from tests.tui.labs import LabFolder


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunEntry, ...]:
    path = tmp_path_factory.mktemp("lab")
    (path / "runs").mkdir()
    lab = LabFolder(path)
    lab.finished(lab.started(lab.run("good one", seed=1), 20), after=0.7)
    lab.finished(lab.started(lab.run("poor", base="electra", seed=2), 20), after=0.2)
    lab.failed(lab.started(lab.run("third", name="kd only", seed=3), 20))
    lab.damaged(lab.run("broken"))
    return LabMonitor(path).poll()


def _titles(entries: tuple[RunEntry, ...], text: str) -> list[str]:
    return [entry.label or "broken" for entry in entries if parse(text)(entry)]


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("", ["good one", "poor", "third", "broken"]),
        ("poor", ["poor"]),
        ("POOR OR third", ["poor", "third"]),
        ('"good one"', ["good one"]),
        ('label:"good one"', ["good one"]),
        ("state:finished", ["good one", "poor"]),
        ("state:finished nDCG@10>0.4", ["good one"]),
        ("state:finished AND ndcg@10<=0.2", ["poor"]),
        ("NOT state:finished", ["third", "broken"]),
        ("NOT (state:finished OR state:failed)", ["broken"]),
        ("state:failed OR state:finished base:electra", ["poor", "third"]),
        ("(state:failed OR state:finished) base:electra", ["poor"]),
        ("base:minilm NOT recipe:kd*", ["good one"]),
        ("base:mini", []),
        ("base~mini", ["good one", "third"]),
        ("base:mini*", ["good one", "third"]),
        ("label:good", []),
        ("label~good", ["good one"]),
        ("seed>=2", ["poor", "third"]),
        ("seed!=2", ["good one", "third"]),
        ("RR@10>0.3", ["good one", "third"]),
        ("nosuch@10>0", []),
        ("loss:ranknet stage:distill", ["good one", "poor", "third"]),
    ],
)
def test_a_filter_lets_through_what_it_says(entries: tuple[RunEntry, ...], text: str, titles: list[str]) -> None:
    assert _titles(entries, text) == titles


def test_a_measure_with_parentheses_and_an_equals_sign_can_be_compared(entries: tuple[RunEntry, ...]) -> None:
    parse("RR(rel=2)@10>0.3 AND (poor)")
    assert _titles(entries, "NOT RR(rel=2)@10>0.3") == ["good one", "poor", "third", "broken"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sate:x", "did you mean 'state'"),
        ("state:finnished", "did you mean 'finished'"),
        ("a OR", "the filter ends too early"),
        ("OR a", "a condition is missing before 'OR'"),
        ("(a", "a parenthesis that is not closed"),
        ("a)", "without its opening one"),
        ('label:"a', "a quote that is not closed"),
        ("nDCG@10>", "has no number to compare with"),
        ("NOT", "the filter ends too early"),
        ("(" * 100 + "a", "nested too deep"),
    ],
)
def test_a_wrong_filter_says_what_and_where(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.where.startswith("filter, character ")


@settings(max_examples=100)
@given(st.text(alphabet=st.sampled_from('ab :"()<>=!0.5@NOTRAD\x1b\ud800'), max_size=40))
def test_any_text_is_a_filter_or_a_refusal(entries: tuple[RunEntry, ...], text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert all(isinstance(found(entry), bool) for entry in entries)


@pytest.mark.parametrize("key", KEYS)
def test_what_lacks_a_value_comes_last_either_way_round(entries: tuple[RunEntry, ...], key: str) -> None:
    up, down = ordered(entries, key), ordered(entries, key, is_falling=True)
    assert sorted(entry.name for entry in up) == sorted(entry.name for entry in down)
    if key == "test":
        assert [entry.label for entry in up][:2] == ["poor", "good one"]
        assert [entry.label for entry in down][:2] == ["good one", "poor"]
        assert up[2:] == down[2:]


def test_sorting_by_what_is_no_column_is_refused(entries: tuple[RunEntry, ...]) -> None:
    with refused(UsageError, "unknown-sort-key", "tset"):
        ordered(entries, "tset")


def test_a_filter_of_an_empty_lab_is_no_fault(tmp_path: Path) -> None:
    assert LabMonitor(tmp_path).poll() == ()
