"""A comparison matches queries by id, corrects over everything it shows, and refuses what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluation.answers import explain
from cerank.evaluation.compare import Comparison, Condition, Measured, Row, System, compare, measured
from cerank.evaluation.comparison_rows import footnotes, reasons, shown_verdict, summary
from cerank.evaluation.measures import check
from cerank.evaluation.multiple_testing import corrected
from cerank.evaluation.seed_variance import mean_of
from cerank.evaluation.verdicts.terms import Margin, Terms
from tests.evaluation.files import qrels_of, ranking_of
from tests.refusals import refused

DL = Condition(dataset="dl20", first_stage="bm25")
OTHER = Condition(dataset="dl19", first_stage="bm25")
BASE = {"q1": 0.1, "q2": 0.5, "q3": 0.9, "q4": 0.4}
LONG = {f"q{at}": (7 * at % 20) / 25 for at in range(20)}


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
    assert found.method == "holm"  # two sets of queries
    assert tuple(row.p_corrected for row in found.rows) == tuple(corrected([row.judgment.p for row in found.rows]).ps)
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
        (system("b", BASE, sha="bb" * 32), "qrels-differ dl20 aaaaaaaaaaaa bbbbbbbbbbbb"),
        (system("b", BASE, condition=OTHER), "conditions-differ dl20 dl19"),
        (system("b", {**BASE, "q5": 0.1}), "queries-differ dl20 1 q5"),
        (system("a", BASE), "name-twice a"),
        (System(label="b", measured=()), "conditions-differ"),
    ],
)
def test_what_was_measured_differently_is_refused_with_the_difference(other, said):
    with refused(UsageError, *said.split()):
        compare([system("a", BASE), other], ["nDCG@10"])


def test_a_measure_a_system_lacks_is_refused():
    with refused(UsageError, "not-measured", "nDCG@20", "dl20", "bm25"):
        compare([system("a", BASE), system("b", BASE)], ["nDCG@20"])


def test_one_system_alone_is_no_comparison():
    with refused(UsageError, "too-few-systems", 2):
        compare([system("a", BASE)], ["nDCG@10"])


def test_named_conditions_narrow_what_systems_must_share():
    more = System(label="b", measured=(*system("b", BASE).measured, *system("b", BASE, condition=OTHER).measured))
    assert compare([system("a", BASE), more], ["nDCG@10"], conditions=[DL]).conditions == (DL,)
    with refused(UsageError, "not-measured", "a", "dl19"):
        compare([system("a", BASE), more], ["nDCG@10"], conditions=[OTHER])


def test_a_comparison_as_json_holds_all_that_is_needed_to_compute_it_again():
    terms = Terms(confidence=0.9, margins={"nDCG@10": Margin(value=0.02)}, with_secondary=True, rounds=99)
    found = compare([system("a", BASE), system("b", dict.fromkeys(BASE, 0.5))], ["nDCG@10"], terms=terms)
    read = msgspec.json.decode(msgspec.json.encode(found), type=Comparison)
    assert read == found
    again = compare(read.systems, read.measures, conditions=read.conditions, terms=read.terms)
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


def dl20(folder: Path, names: tuple[str, ...] = ("nDCG@10",)) -> list[System]:
    qrels = qrels_of(folder / "qrels")
    runs = ("bm25", "bm25-rm3", "tasb", "ada2", "splade-pp-ed")
    return [
        System(label=run, measured=(measured(names, DL, qrels, "aa", ranking_of(folder / "runs" / f"{run}.run")),))
        for run in runs
    ]


def contradicts(row: Row) -> bool:
    """Whether a row's verdict says other than its own intervals."""
    found = row.judgment
    excludes = found.low > 0 or found.high < 0
    different = found.p_corrected <= 0.05
    within = is_inside = False
    if found.margin is not None:
        is_inside = -found.margin.value < found.equivalence_low and found.equivalence_high < found.margin.value
        within = found.p_equivalence_corrected <= 0.05
    expected = {
        (True, True): "different but negligible",
        (True, False): "better" if row.paired.difference > 0 else "worse",
        (False, True): "equivalent",
        (False, False): "cannot tell",
    }
    says_more = (excludes and not different) or (is_inside and not within)
    return (
        row.verdict != expected[different, within] or says_more or not found.low <= row.paired.difference <= found.high
    )


@pytest.mark.parametrize("correction", ["auto", "holm", "bh", "bonferroni", "max-t", "none"])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05, 0.3])
def test_no_verdict_on_the_given_runs_contradicts_its_intervals(shared: Path, correction, margin):
    systems = dl20(shared / "trec-dl-2020-top100", ("nDCG@10", "RR(rel=2)@10"))
    margins = {"nDCG@10": Margin(value=margin), "RR(rel=2)@10": Margin(value=margin)}
    terms = Terms(pairs="all", correction=correction, margins=margins, rounds=1999)
    found = compare(systems, ["nDCG@10", "RR(rel=2)@10"], terms=terms)
    assert len(found.rows) == found.family == found.family_equivalence == 20
    assert [row for row in found.rows if contradicts(row)] == []
    by_pair = {(row.left, row.right): row.verdict for row in found.rows if row.measure == "nDCG@10"}
    if margin == 0.02:
        assert by_pair["bm25", "splade-pp-ed"] == "better"
        assert by_pair["bm25", "bm25-rm3"] == "cannot tell"  # p = .60 uncorrected, and yet not "on par"


def test_a_difference_lost_to_the_correction_is_named_under_the_table(shared: Path):
    terms = Terms(pairs="all", correction="holm")
    found = compare(dl20(shared / "trec-dl-2020-top100"), ["nDCG@10"], terms=terms)
    (line,) = (line for line in footnotes(found) if line.startswith("p < 0.05 by itself"))
    assert "splade-pp-ed against tasb by nDCG@10 on dl20 over bm25" in line  # p = .014, and .057 among ten
    (row,) = (row for row in summary(found) if (row.against, row.system) == ("tasb", "splade-pp-ed"))
    assert row.low > 0 > row.judged_low
    assert row.verdict == "cannot tell"


def test_cannot_tell_says_what_these_queries_could_show(shared: Path):
    systems = dl20(shared / "trec-dl-2020-top100")[:2]
    terms = Terms(margins={"nDCG@10": Margin(value=0.02)})
    judgment = compare(systems, ["nDCG@10"], terms=terms).rows[0].judgment
    assert judgment.verdict == "cannot tell"
    assert judgment.detectable is not None
    assert judgment.detectable > 0.02
    assert judgment.queries_for_margin > 54
    assert judgment.queries_for_difference > 54


def test_a_declared_family_larger_than_what_is_shown_corrects_harder():
    systems = [system("a", LONG), system("b", {q: v + 0.02 + 0.03 * (v > 0.5) for q, v in LONG.items()})]
    alone = compare(systems, ["nDCG@10"]).rows[0]
    among = compare(systems, ["nDCG@10"], terms=Terms(family=10))
    assert alone.judgment.p == pytest.approx(
        stats.ttest_rel(*(list(s.measured[0].values["nDCG@10"].values()) for s in systems)).pvalue
    )
    assert among.rows[0].p_corrected == pytest.approx(10 * alone.p_corrected)
    assert among.family == 10
    with refused(UsageError, "family-too-small", 1, 2):
        compare([*systems, system("c", LONG)], ["nDCG@10"], terms=Terms(family=1))


@pytest.mark.parametrize("margin", [0.0, -0.01, float("nan"), float("inf")])
def test_a_margin_that_is_not_above_zero_is_refused(margin):
    with refused(UsageError, "margin-out-of-range", 0):
        compare(
            [system("a", BASE), system("b", BASE)], ["nDCG@10"], terms=Terms(margins={"nDCG@10": Margin(value=margin)})
        )


def test_a_margin_for_a_measure_not_compared_is_refused():
    with refused(UsageError, "margin-unused", "RR@10", "nDCG@10"):
        compare([system("a", BASE), system("b", BASE)], ["nDCG@10"], terms=Terms(margins={"RR@10": Margin(value=0.1)}))


def test_systems_that_score_the_same_are_equivalent_within_a_margin_and_never_merely_not_different():
    margins = {"nDCG@10": Margin(value=0.05)}
    few, many = ([system("a", values), system("b", dict(values))] for values in (BASE, LONG))
    assert compare(many, ["nDCG@10"]).rows[0].verdict == "cannot tell"
    assert compare(many, ["nDCG@10"], terms=Terms(margins=margins)).rows[0].verdict == "equivalent"
    row = compare(few, ["nDCG@10"], terms=Terms(margins=margins)).rows[0]
    assert row.verdict == "cannot tell"


def test_queries_that_tie_are_equivalent_only_where_rare_differences_could_not_easily_go_unseen():
    terms = Terms(margins={"nDCG@10": Margin(value=0.02)}, worth={"nDCG@10": Margin(value=0.03)})
    for n, verdict, worth in ((5, "cannot tell", "cannot tell"), (20, "cannot tell", "cannot tell")):
        values = {f"q{at}": 0.5 for at in range(n)}
        row = compare([system("a", values), system("b", dict(values))], ["nDCG@10"], terms=terms).rows[0]
        assert (row.verdict, row.worth.answer, row.judgment.unseen) == (verdict, worth, 0.25)
        assert "unseen" in {note.kind for note in row.notes}
        assert "0.25" in explain(row.judgment, row.limits)
    values = {f"q{at}": 0.5 for at in range(60)}
    row = compare([system("a", values), system("b", dict(values))], ["nDCG@10"], terms=terms).rows[0]
    assert (row.verdict, row.worth.answer, row.judgment.unseen) == ("equivalent", "not worth it", None)
    assert "unseen" not in {note.kind for note in row.notes}


def test_one_system_of_a_table_with_few_differing_queries_cannot_be_called_equivalent_by_the_others():
    random = np.random.default_rng(4)
    base = {f"q{at}": float(value) for at, value in enumerate(random.uniform(0.2, 0.8, 20))}
    other = {query: value + float(random.normal(0, 0.005)) for query, value in base.items()}
    terms = Terms(margins={"nDCG@10": Margin(value=0.02)})
    rows = compare([system("a", base), system("b", dict(base)), system("c", other)], ["nDCG@10"], terms=terms).rows
    assert [row.verdict for row in rows] == ["cannot tell", "equivalent"]


def test_an_equivalence_of_few_queries_says_that_rare_differences_would_not_be_seen():
    terms = Terms(margins={"nDCG@10": Margin(value=0.02)})
    for n, is_said in (
        (60, True),
        (100, True),
        (200, False),
    ):  # (1 - .02)^n, the chance of no difference, is .30, .13, .02
        values = {f"q{at}": 0.5 for at in range(n)}
        row = compare([system("a", values), system("b", dict(values))], ["nDCG@10"], terms=terms).rows[0]
        assert row.verdict == "equivalent"
        assert ("rare" in {note.kind for note in row.notes}) == is_said
    shifted = dict.fromkeys(values, 0.51)  # every query differs, by the same: nothing about that is rare
    row = compare([system("a", values), system("b", shifted)], ["nDCG@10"], terms=terms).rows[0]
    assert row.verdict == "different but negligible"
    assert "rare" not in {note.kind for note in row.notes}


def test_a_ranking_compared_with_itself_is_identical_and_no_part_of_the_family():
    qrels = {f"q{at}": {"d": 1} for at in range(20)}
    lists = {query: ["x", "d"] if at % 3 else ["d", "x"] for at, query in enumerate(qrels)}
    one = Ranking(lists, {query: [2.0, 1.0] for query in lists})
    same_order = Ranking(lists, {query: [0.9, 0.8] for query in lists})
    other = Ranking({query: ["d", "x"] for query in lists}, {query: [2.0, 1.0] for query in lists})
    systems = [
        System(label=label, measured=(measured(["RR@10"], DL, qrels, "aa", ranking),))
        for label, ranking in (("a", one), ("copy", same_order), ("b", other))
    ]
    found = compare(systems, ["RR@10"], terms=Terms(margins={"RR@10": Margin(value=0.1)}))
    assert [row.verdict for row in found.rows] == ["identical", "better"]
    assert found.family == found.family_equivalence == 1
    alone = compare(systems[:2], ["RR@10"])
    assert alone.family == 0
    assert "Holm" not in footnotes(alone)[0]  # no chance of a false verdict is promised where nothing was tested


@pytest.mark.parametrize(
    ("n", "p", "verdict"), [(2, 0.5, "cannot tell"), (5, 0.0625, "cannot tell"), (6, 0.03125, "better")]
)
def test_the_same_gain_on_every_query_has_the_p_of_flipped_signs(n, p, verdict):
    left = {f"q{at}": 0.5 for at in range(n)}
    for correction in ("auto", "holm", "max-t", "none"):
        terms = Terms(correction=correction, rounds=1999)
        row = compare([system("a", left), system("b", dict.fromkeys(left, 1.0))], ["nDCG@10"], terms=terms).rows[0]
        assert (row.judgment.p, row.verdict, row.judgment.basis) == (p, verdict, "exact sign flips")
        assert not contradicts(row)
        assert -0.5 <= row.low <= row.high <= 0.5


def test_one_query_that_differs_cannot_tell_though_a_t_test_would_give_it_p_a_third():
    right = {**LONG, "q3": LONG["q3"] + 0.1}
    row = compare([system("a", LONG), system("b", right)], ["nDCG@10"]).rows[0]
    assert row.paired.p == pytest.approx(0.330, abs=0.001)
    assert (row.judgment.p, row.verdict, row.judgment.detectable) == (1.0, "cannot tell", None)


def test_a_verdict_on_half_of_the_queries_says_so_and_gives_the_difference_on_the_others():
    qrels = {f"q{at}": {"d": 1} for at in range(30)}
    full = Ranking(
        {q: ["d", "x"] if at % 4 else ["x", "d"] for at, q in enumerate(qrels)}, dict.fromkeys(qrels, (2.0, 1.0))
    )
    part = Ranking({q: ["d"] for q in list(qrels)[:14]}, {q: [1.0] for q in list(qrels)[:14]})
    systems = [
        System(label=n, measured=(measured(["RR@10"], DL, qrels, "aa", r),))
        for n, r in (("full", full), ("part", part))
    ]
    found = compare(systems, ["RR@10"])
    (row,) = found.rows
    assert shown_verdict(row) == "worse (16 of 30 queries missing)"
    both = [list(s.measured[0].values["RR@10"].values())[:14] for s in systems]
    difference = sum(b - a for a, b in zip(*both, strict=True)) / 14
    (line,) = (line for line in footnotes(found) if "that both rank" in line)
    assert f"on the 14 queries that both rank, 'part' differs from 'full' by {difference:+.4f}" in line
    assert "W/T/L 4/10/0" in line


@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_a_margin_as_wide_as_the_measure_is_refused(margin):
    terms = Terms(margins={"nDCG@10": Margin(value=margin)})
    with refused(UsageError, "margin-too-large"):
        compare([system("a", BASE), system("b", BASE)], ["nDCG@10"], terms=terms)


def test_where_all_rows_share_their_queries_the_maximum_statistic_corrects_else_holm():
    random = np.random.default_rng(5)
    rows = [{q: float(v) for q, v in zip(LONG, random.uniform(0, 1, 20), strict=True)} for _ in range(3)]
    systems = [system(label, row) for label, row in zip("abc", rows, strict=True)]
    assert compare(systems, ["nDCG@10"]).method == "max-t"
    assert compare(systems[:2], ["nDCG@10"]).method == "holm"  # one comparison: its t-test
    assert compare(systems, ["nDCG@10"], terms=Terms(family=9)).method == "holm"
    for row in compare(systems, ["nDCG@10"], terms=Terms(rounds=1999)).rows:
        assert row.p_corrected >= row.judgment.p
        assert row.judgment.level <= row.judgment.alpha == 0.05


def test_grade_one_is_pointed_out_where_grades_go_to_three():
    ranking = Ranking({"q1": ["a", "b"], "q2": ["b", "a"]}, dict.fromkeys(["q1", "q2"], (2.0, 1.0)))
    for largest, is_due in ((3, True), (2, False)):
        qrels = {"q1": {"a": 1, "b": largest}, "q2": {"a": 1}}
        systems = [
            System(label=label, measured=(measured(["RR@10", "RR(rel=2)@10", "nDCG@10"], DL, qrels, "aa", ranking),))
            for label in "ab"
        ]
        changed = msgspec.structs.replace(systems[1].measured[0], ranking_sha256="bb")
        found = compare([systems[0], System(label="b", measured=(changed,))], ["RR@10", "RR(rel=2)@10", "nDCG@10"])
        lines = [line for line in footnotes(found) if "counts grade 1 as relevant" in line]
        assert len(lines) == is_due
        assert all("TREC DL counts 2: RR(rel=2)@10" in line for line in lines)


def test_two_queries_and_the_largest_statistic_give_a_verdict_all_the_same():
    systems = [system("a", {"q1": 0.1, "q2": 0.5}), system("b", {"q1": 0.3, "q2": 0.6})]
    row = compare(systems, ["nDCG@10"], terms=Terms(correction="max-t", rounds=99)).rows[0]
    assert row.verdict == "cannot tell"
    assert not contradicts(row)


def test_equal_differences_that_flips_cannot_tell_from_0_have_an_interval_that_holds_0():
    systems = [system("a", {"q1": 0.0, "q2": 0.0}), system("b", {"q1": 0.9, "q2": 0.9})]
    row = compare(systems, ["nDCG@10"], terms=Terms(correction="max-t", rounds=199)).rows[0]
    assert row.verdict == "cannot tell"
    assert (row.judgment.low, row.judgment.high) == (0.0, 1.0)  # all that the measure allows
    assert row.judgment.detectable is None


def test_all_pairs_of_three_systems_are_three_rows_and_a_line_each():
    systems = [system("a", BASE), system("b", dict.fromkeys(BASE, 0.5)), system("c", dict.fromkeys(BASE, 0.1))]
    found = compare(systems, ["nDCG@10"], terms=Terms(pairs="all", correction="max-t"))
    assert [(row.left, row.right) for row in found.rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(line.against, line.system) for line in summary(found)] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_claim_about_recipes_rests_on_the_spread_of_seeds():
    left = mean_of("left", [system(f"l{s}", {q: v + 0.02 * s for q, v in LONG.items()}) for s in range(3)])
    right = mean_of(
        "right", [system(f"r{s}", {q: v + 0.1 + 0.05 * s + 0.01 * v for q, v in LONG.items()}) for s in range(3)]
    )
    checkpoints = compare([left, right], ["nDCG@10"]).rows[0]
    recipes = compare([left, right], ["nDCG@10"], terms=Terms(claim="recipes")).rows[0]
    assert recipes.paired == checkpoints.paired
    assert checkpoints.verdict == "better"
    assert recipes.judgment.p > 10 * checkpoints.judgment.p
    assert recipes.recipes.seeds_left == recipes.recipes.seeds_right == 3
    (_, line) = summary(compare([left, right], ["nDCG@10"], terms=Terms(claim="recipes")))
    assert (line.effect, line.wins, line.losses, line.basis) == (None, None, None, "seeds")  # those are of checkpoints
    assert (line.df, line.error) == (recipes.recipes.estimate.df, recipes.recipes.estimate.error)
    with refused(UsageError, "too-few-seeds", 2, 1):
        compare([system("a", LONG), right], ["nDCG@10"], terms=Terms(claim="recipes"))
    bm25 = msgspec.structs.replace(system("bm25", LONG), is_fixed=True)
    row = compare([bm25, right], ["nDCG@10"], terms=Terms(claim="recipes")).rows[0]
    assert row.recipes.sd_seeds_left == 0
    assert any("'bm25'" in note.text and "'right'" in note.text for note in row.notes)


def test_a_claim_about_recipes_of_two_single_rankings_is_refused():
    files = [msgspec.structs.replace(system(label, BASE), is_fixed=True) for label in "ab"]
    with refused(UsageError, "too-few-seeds", "a", "b") as caught:
        compare(files, ["nDCG@10"], terms=Terms(claim="recipes"))
    assert "LABEL=RUN,RUN" in caught.value.hint


def test_the_family_the_method_and_a_late_margin_stand_under_the_table():
    terms = Terms(margins={"nDCG@10": Margin(value=0.02, source="command line")}, correction="bh")
    lines = footnotes(compare([system("a", BASE), system("b", dict.fromkeys(BASE, 0.5))], ["nDCG@10"], terms=terms))
    assert lines[0] == "1 comparison: the chance of a false verdict is at most 5 %"
    systems = [system("a", LONG), system("b", dict.fromkeys(LONG, 0.5)), system("c", dict.fromkeys(LONG, 0.4))]
    said = {
        "bh": "2 comparisons: of the differences found at most 5 % are expected to be false (Benjamini and Hochberg)",
        "holm": "2 comparisons: the chance of any false verdict among them all is at most 5 % (Holm's correction)",
        "none": "2 comparisons, unadjusted: each verdict by itself errs in at most 5 %",
    }
    for correction, text in said.items():
        assert footnotes(compare(systems, ["nDCG@10"], terms=Terms(correction=correction)))[0] == text
    assert "step-down max-t" in footnotes(compare(systems, ["nDCG@10"]))[0]
    assert any(line.startswith("margin for nDCG@10: ±0.02, ") for line in lines)


def test_a_reason_names_the_systems_the_interval_and_the_margin():
    terms = Terms(margins={"nDCG@10": Margin(value=0.02, before=True)})
    (reason,) = reasons(compare([system("a", LONG), system("b", dict.fromkeys(LONG, 0.4))], ["nDCG@10"], terms=terms))
    assert reason.startswith("b against a, nDCG@10 on dl20 over bm25: cannot tell (neither a difference ")
    assert "95 % interval [" in reason
    assert "±0.02" in reason
    assert "80 % power" in reason


@settings(max_examples=12)
@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])] * 3), min_size=2, max_size=9),
    st.sampled_from(["auto", "holm", "bh", "bonferroni", "max-t", "none"]),
)
def test_any_comparison_survives_json_and_no_verdict_contradicts_its_intervals(rows, correction):
    systems = [system(label, {f"q{n}": row[k] for n, row in enumerate(rows)}) for k, label in enumerate("abc")]
    margins = {"nDCG@10": Margin(value=0.05)}
    found = compare(systems, ["nDCG@10"], terms=Terms(pairs="all", correction=correction, margins=margins, rounds=199))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found
    assert [row for row in found.rows if contradicts(row)] == []
    assert len(reasons(found)) == len(summary(found)) == 3


def test_a_baseline_that_is_perfect_on_every_query_leaves_no_gain_to_find():
    perfect, other = ({f"q{at}": value for at in range(40)} for value in (1.0, 0.9))
    for left, right, is_said in ((perfect, other, True), (other, perfect, False)):
        row = compare([system("a", left), system("b", right)], ["nDCG@10"]).rows[0]
        assert ("no room" in {note.kind for note in row.notes}) == is_said
