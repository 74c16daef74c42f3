"""What a reader must know of the data is counted and said, and nothing is dropped."""

from __future__ import annotations

import pytest

from cerank.core.rankings import Ranking, ordered
from cerank.evaluation import diagnostics
from cerank.evaluation.measures import per_query

QRELS = {"q1": {"a": 2, "b": 0}, "q2": {"a": 1}, "q3": {"a": 0}}


def ranking(**lists: str) -> Ranking:
    documents = {query: docs.split() for query, docs in lists.items()}
    return Ranking(documents, {q: [float(-place) for place in range(len(docs))] for q, docs in documents.items()})


def kinds(left: Ranking, right: Ranking, measure: str = "nDCG@10", zeros: int = 0) -> list[str]:
    facts = [diagnostics.of_ranking([measure], QRELS, each) for each in (left, right)]
    return [note.kind for note in diagnostics.notes(measure, ("l", facts[0]), ("r", facts[1]), n=3, zeros=zeros)]


def test_the_judged_share_is_ir_measures_judged_on_ranked_queries():
    found = ranking(q1="a x y", q2="z a")
    share = diagnostics.of_ranking(["nDCG@2"], QRELS, found).judged["nDCG@2"]
    by_query = per_query(("Judged@2",), QRELS, found)["Judged@2"]
    assert share == pytest.approx((by_query["q1"] + by_query["q2"]) / 2) == 0.5


def test_queries_without_a_document_of_the_threshold_are_counted_for_each_measure():
    found = diagnostics.of_ranking(["nDCG@10", "AP(rel=2)"], QRELS, ranking(q1="a"))
    assert found.answerless == {"nDCG@10": 1, "AP(rel=2)": 2}
    assert diagnostics.answerless(QRELS) == ("q3",)


def test_broken_ties_are_seen_in_the_scores():
    tied = ordered({"q1": {"a": 1.0, "b": 1.0, "c": 0.5}})
    assert diagnostics.of_ranking(["nDCG@10"], QRELS, tied).ties == 0.5
    assert diagnostics.of_ranking(["nDCG@10"], QRELS, ranking(q1="a b c")).ties == 0.0


def test_depth_is_of_the_queries_ranked():
    found = diagnostics.of_ranking(["nDCG@10"], QRELS, ranking(q1="a b c", q2="a"))
    assert (found.shallowest, found.deepest) == (1, 3)


def test_a_gap_of_judged_documents_names_the_option_that_measures_without_them():
    facts = [diagnostics.of_ranking(["nDCG@10"], QRELS, each) for each in (ranking(q1="a b"), ranking(q1="x y"))]
    notes = diagnostics.notes("nDCG@10", ("l", facts[0]), ("r", facts[1]), n=3, zeros=0)
    (note,) = (note for note in notes if note.kind == "judged")
    assert note.text == (
        "judged documents in the top 10: 100 % of 'l', 0 % of 'r'; unjudged ones count as not relevant, which may cost "
        "'r', and --judged-only measures without them"
    )


def test_each_kind_of_note_appears_only_where_it_is_due():
    same = ranking(q1="a b", q2="a b")
    assert kinds(same, same) == ["answerless"]
    assert kinds(same, same, zeros=2) == ["zeros", "answerless"]
    assert "depth" in kinds(same, ranking(q1="a b b2"))
    assert "many ties" in kinds(same, ordered({"q1": {"a": 1.0, "b": 1.0}}))
    few = {f"d{at}": -float(at) for at in range(9)} | {"last": -8.0}  # 1 of 9 neighbors is tied
    assert "many ties" in kinds(same, ordered({"q1": few}))
    assert "ties" in kinds(same, ordered({"q1": few, "q2": {f"d{at}": -float(at) for at in range(10)}}))


def test_condensed_measures_are_asked_for_by_name_and_computed():
    names = diagnostics.condensed(["nDCG@10", "RR@10", "AP(rel=2)", "ERR@10", "Bpref"])
    assert names == (
        *("nDCG(judged_only=True)@10", "RR(judged_only=True)@10", "AP(rel=2,judged_only=True)"),
        *("ERR(judged_only=True)@10", "Bpref"),
    )
    assert per_query(names[:1], QRELS, ranking(q1="x y a"))[names[0]]["q1"] == 1.0


def test_facts_of_seeds_are_one_systems_facts():
    facts = [diagnostics.of_ranking(["nDCG@10"], QRELS, each) for each in (ranking(q1="a b"), ranking(q1="a x y"))]
    merged = diagnostics.merged(facts)
    assert (merged.shallowest, merged.deepest) == (2, 3)
    assert merged.judged["nDCG@10"] == pytest.approx((1 + 1 / 3) / 2)
    assert diagnostics.merged([facts[0], None]) is None


def test_very_skewed_differences_of_few_queries_are_told_once_for_all_rows():
    import numpy as np

    from cerank.evaluation.compare import Condition, Measured, System, compare
    from cerank.evaluation.comparison_rows import footnotes

    def system(label, values):
        by_query = {f"q{place}": float(value) for place, value in enumerate(values)}
        where = Condition("c", "")
        return System(
            label=label, measured=(Measured(condition=where, qrels_sha256="x", values={"nDCG@10": by_query}),)
        )

    def lines(queries, draw):
        random = np.random.default_rng(1)
        systems = [system("a", np.full(queries, 0.3))]
        systems += [system(label, 0.3 + draw(random, queries)) for label in ("b", "c")]
        return [line for line in footnotes(compare(systems, ["nDCG@10"])) if "skewed" in line]

    def skewed(random, queries):
        return np.minimum(random.exponential(0.1, queries), 0.7)

    (line,) = lines(43, skewed)
    assert "7 to 8 of 100 tables err where 5 of 100 are promised" in line
    assert line.count("(skewness +") == 2
    assert not lines(60, skewed)
    assert not lines(43, lambda random, queries: random.normal(0.0, 0.05, queries))
