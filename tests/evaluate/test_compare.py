"""A comparison matches queries by id, corrects over everything it shows, and refuses what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scipy import stats

from cerank.domain.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluate.compare import Comparison, Condition, Measured, System, compare, measured, summary
from cerank.evaluate.measures import check
from cerank.evaluate.significance import holm
from tests.evaluate.files import qrels_of, ranking_of

DL = Condition(dataset="dl20", first_stage="bm25")
OTHER = Condition(dataset="dl19", first_stage="bm25")
BASE = {"q1": 0.1, "q2": 0.5, "q3": 0.9, "q4": 0.4}


def system(label: str, values: dict[str, float], *, condition: Condition = DL, sha: str = "aa" * 32) -> System:
    return System(label=label, measured=(Measured(condition=condition, qrels_sha256=sha, values={"nDCG@10": values}),))


def test_queries_are_matched_by_id_whatever_their_order():
    other = {"q4": 0.5, "q3": 0.9, "q2": 0.7, "q1": 0.1}
    row = compare([system("a", BASE), system("b", other)], ["nDCG@10"]).rows[0]
    expected = stats.ttest_rel([0.1, 0.7, 0.9, 0.5], [0.1, 0.5, 0.9, 0.4])
    assert (row.paired.t, row.paired.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (row.paired.wins, row.paired.ties, row.paired.losses, row.zero_share) == (2, 2, 0, 0.5)
    assert (row.left, row.right) == ("a", "b")


def test_p_is_corrected_over_every_row_shown():
    both = [
        System(label=name, measured=(*system(name, row).measured, *system(name, row, condition=OTHER).measured))
        for name, row in (
            ("a", BASE),
            ("b", {q: v + 0.01 * len(q) * v for q, v in BASE.items()}),
            ("c", dict.fromkeys(BASE, 0.5)),
        )
    ]
    found = compare(both, ["nDCG@10"])
    assert found.family == len(found.rows) == 4
    assert [row.p_holm for row in found.rows] == holm([row.paired.p for row in found.rows])
    assert {(row.condition.dataset, row.right) for row in found.rows} == {
        (d, s) for d in ("dl20", "dl19") for s in "bc"
    }


def test_a_query_a_ranking_lacks_counts_zero_and_is_listed():
    qrels = {"q1": {"d": 1}, "q2": {"d": 1}, "q3": {"d": 1}}
    full = Ranking({q: ["d"] for q in qrels}, {q: [1.0] for q in qrels})
    part = Ranking({"q1": ["d"], "q9": ["d"]}, {"q1": [1.0], "q9": [1.0]})
    names = check(["RR@10"], qrels, "")
    systems = [
        System(label=n, measured=(measured(names, DL, qrels, "aa", r),)) for n, r in (("full", full), ("part", part))
    ]
    row = compare(systems, names).rows[0]
    assert (row.missing_left, row.missing_right) == ((), ("q2", "q3"))
    assert row.paired.mean_right == pytest.approx(1 / 3)
    assert systems[1].measured[0].unjudged == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (system("b", BASE, sha="bb" * 32), "different qrels of dl20: sha256 aaaaaaaaaaaa and bbbbbbbbbbbb"),
        (system("b", BASE, condition=OTHER), "not measured on the same: dl20 over bm25 against dl19 over bm25"),
        (system("b", {**BASE, "q5": 0.1}), "for different queries of dl20 over bm25: 1 are in one only, such as q5"),
        (system("a", BASE), "two systems are called 'a'"),
        (System(label="b", measured=()), "against nothing"),
    ],
)
def test_what_was_measured_differently_is_refused_with_the_difference(other, said):
    with pytest.raises(UsageError) as refused:
        compare([system("a", BASE), other], ["nDCG@10"])
    assert said in str(refused.value)


def test_a_measure_a_system_lacks_is_refused():
    with pytest.raises(UsageError, match="has no nDCG@20 on dl20 over bm25"):
        compare([system("a", BASE), system("b", BASE)], ["nDCG@20"])


def test_one_system_alone_is_no_comparison():
    with pytest.raises(UsageError, match="at least 2 systems"):
        compare([system("a", BASE)], ["nDCG@10"])


def test_named_conditions_narrow_what_systems_must_share():
    more = System(label="b", measured=(*system("b", BASE).measured, *system("b", BASE, condition=OTHER).measured))
    assert compare([system("a", BASE), more], ["nDCG@10"], conditions=[DL]).conditions == (DL,)
    with pytest.raises(UsageError, match="'a' was not measured on dl19"):
        compare([system("a", BASE), more], ["nDCG@10"], conditions=[OTHER])


def test_a_comparison_as_json_holds_all_that_is_needed_to_compute_it_again():
    found = compare([system("a", BASE), system("b", dict.fromkeys(BASE, 0.5))], ["nDCG@10"], confidence=0.9)
    read = msgspec.json.decode(msgspec.json.encode(found), type=Comparison)
    assert read == found
    again = compare(read.systems, read.measures, conditions=read.conditions, confidence=read.confidence)
    assert again == found


def test_the_summary_has_a_line_for_each_system_and_none_of_a_difference_for_the_baseline():
    lines = summary(compare([system("a", BASE), system("b", dict.fromkeys(BASE, 0.5))], ["nDCG@10"]))
    assert [(line.system, line.difference is None) for line in lines] == [("a", True), ("b", False)]
    assert [line.mean for line in lines] == pytest.approx([0.475, 0.5])
    assert (lines[1].wins, lines[1].ties, lines[1].losses, lines[1].queries) == (2, 1, 1, 4)


def test_the_given_runs_of_dl20_compare_as_the_reference_file_says(shared: Path):
    folder = shared / "trec-dl-2020-top100"
    qrels = qrels_of(folder / "qrels")
    systems = {
        name: System(
            label=name, measured=(measured(("nDCG@10",), DL, qrels, "aa", ranking_of(folder / "runs" / f"{name}.run")),)
        )
        for name in ("bm25", "bm25-rm3", "tasb", "ada2", "splade-pp-ed")
    }
    for line in (folder / "ndcg10-paired-ttest.tsv").read_text().splitlines()[1:]:
        a, b, mean_a, mean_b, t, p = line.split("\t")
        row = compare([systems[b], systems[a]], ["nDCG@10"]).rows[0]
        assert row.paired.t == pytest.approx(float(t), abs=1e-6)
        assert row.paired.p == pytest.approx(float(p), rel=1e-5)
        assert (row.paired.mean_right, row.paired.mean_left) == pytest.approx(
            (float(mean_a), float(mean_b)), abs=5.1e-5
        )
