"""Notes on how much tuning the two systems of a verdict had."""

from __future__ import annotations

from cerank.evaluation.tuning_budgets import SystemTuning, notes

LONG = SystemTuning(trials=24, pairs=9000, sweep="rates", method="random", measure="nDCG@10", validation="dev")
NONE = SystemTuning()


def kinds(*sides: SystemTuning | None, dataset: str = "test") -> list[str]:
    left, right = sides
    return [note.kind for note in notes(("a", left), ("b", right), dataset)]


def test_nothing_is_said_where_neither_was_tuned() -> None:
    assert kinds(NONE, NONE) == kinds(None, NONE) == kinds(None, None) == []


def test_both_numbers_of_trials_stand_in_one_note_and_unequal_ones_in_a_warning() -> None:
    told, warning = notes(("a", NONE), ("b", LONG), "test")
    assert (told.kind, warning.kind) == ("tuned", "unequal tuning")
    assert all(text in told.text for text in ("'b'", "n = 24", "'a'", "n = 0", "9,000", "rates", "nDCG@10"))
    assert warning.text.index("'b'") < warning.text.index("'a'")
    turned = notes(("a", LONG), ("b", NONE), "test")[1].text
    assert turned.index("'a'") < turned.index("'b'")


def test_equal_budgets_give_no_warning_and_an_untrained_system_none_either() -> None:
    assert kinds(LONG, LONG) == ["tuned"]
    assert kinds(None, LONG) == ["tuned"]


def test_a_test_set_that_was_tuned_on_is_said_so() -> None:
    assert kinds(LONG, LONG, dataset="dev") == ["tuned", "tuned on test", "tuned on test"]
    assert kinds(NONE, NONE, dataset="") == []
