"""The aggregation of passages that validation chooses."""

from __future__ import annotations

from cerank.core.rankings import Ranking
from cerank.evaluation.studies.aggregation_choice import choose_aggregation


def test_of_equal_aggregations_the_first_is_chosen():
    candidates = Ranking({"q": ("a", "b")}, {"q": (2.0, 1.0)})
    passages = {"q": {"a%p0": 0.0, "b%p0": 1.0}}
    choice = choose_aggregation(passages, candidates, {"q": {"b": 1}}, "nDCG@10", 3)
    assert (choice.chosen, set(choice.means.values())) == ("MaxP", {1.0})
    passages = {"q": {"a%p0": 0.0, "a%p1": 3.0, "b%p0": 1.0}}
    assert choose_aggregation(passages, candidates, {"q": {"b": 1}}, "nDCG@10", 3).chosen == "FirstP"
