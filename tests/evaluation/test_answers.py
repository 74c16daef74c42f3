"""Every verdict has its sentence, whose figures are those of scipy on the same values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from cerank.evaluation.answers import ANOTHER_SEED, Cost, answers, duration, paragraphs
from cerank.evaluation.compare import Comparison, Condition, Measured, System, compare
from cerank.evaluation.power import queries_for_difference, queries_for_margin, smallest_difference
from cerank.evaluation.verdicts.terms import Margin, Terms

DL = Condition(dataset="dl20", first_stage="bm25")
N = 400
DRAW = np.random.default_rng(7)
BASE = DRAW.uniform(0.3, 0.6, N)
NOISE = DRAW.normal(0, 1, N)
NOISE = (NOISE - NOISE.mean()) / NOISE.std(ddof=1)
DECLARED = Margin(value=0.02, source="recipe", before=True)


def shifted(by: float, sd: float) -> np.ndarray:
    """Values whose differences from BASE have exactly this mean and sd."""
    return BASE + by + sd * NOISE


def system(label: str, values: np.ndarray, **how) -> System:
    row = {f"q{at}": float(value) for at, value in enumerate(values)}
    entry = Measured(condition=DL, qrels_sha256="aa" * 32, values={"nDCG@10": row})
    return System(label=label, measured=(entry,), **how)


def stages(*values: np.ndarray, margin: Margin | None = None) -> Comparison:
    names = ["first-stage", "contrastive", "distill", "polish"]
    systems = [system(name, each, is_fixed=not at) for at, (name, each) in enumerate(zip(names, values, strict=False))]
    return compare(systems, ["nDCG@10"], terms=Terms(pairs="stages", margins={"nDCG@10": margin} if margin else {}))


def one_stage(by: float, sd: float, margin: Margin | None = DECLARED) -> str:
    return alone(stages(BASE, shifted(by, sd), margin=margin))


def alone(comparison: Comparison, costs: dict[str, Cost] | None = None) -> str:
    """The one answer of a run, without what it says of its queries and the caution that ends it."""
    (text,) = paragraphs(comparison, costs)
    assert text.endswith(f". {ANOTHER_SEED}")
    where, n = "of dl20 over bm25", comparison.rows[0].paired.n
    assert f", on {n} queries {where}:" in text or f"These {n} queries {where} cannot tell" in text
    text = text.removesuffix(f" {ANOTHER_SEED}").replace(f", on {n} queries {where}", "")
    return text.replace(f" {where} cannot tell", " cannot tell")


def figure(value: float) -> str:
    return f"{abs(value):.4f}".removeprefix("0")


def interval(by: float, sd: float, level: float) -> tuple[str, str]:
    low, high = stats.t.interval(1 - level, N - 1, by, sd / np.sqrt(N))
    return figure(low), figure(high)


def test_better_says_yes_by_how_much_and_within_what():
    low, high = interval(0.05, 0.1, 0.05)
    assert one_stage(0.05, 0.1) == (
        f"Was fine-tuning worth it? Yes: contrastive scores .0500 nDCG@10 above the first stage, somewhere between "
        f"{low} and {high} above (95 % interval)."
    )


def test_worse_says_no():
    low, high = interval(-0.05, 0.1, 0.05)
    assert one_stage(-0.05, 0.1) == (
        f"Was fine-tuning worth it? No: contrastive scores .0500 nDCG@10 below the first stage, somewhere between "
        f"{high} and {low} below (95 % interval)."
    )


def test_equivalent_names_the_margin_and_the_interval_of_the_two_one_sided_tests():
    low, high = interval(0.003, 0.1, 0.10)
    assert one_stage(0.003, 0.1) == (
        "Was fine-tuning worth it? No: contrastive and the first stage are the same within ±.02 nDCG@10, declared "
        "before as too small to matter; contrastive scores .0030 above the first stage, somewhere between "
        f"{low} below and {high} above (90 % interval). The first stage, which is cheaper, is enough."
    )


def test_different_but_negligible_keeps_its_direction():
    low, high = interval(0.006, 0.05, 0.10)
    assert one_stage(0.006, 0.05) == (
        "Was fine-tuning worth it? No: contrastive is better, but by less than .02 "
        "nDCG@10; it scores .0060 above the "
        f"first stage, somewhere between {low} and {high} above (90 % interval). The first stage, which is cheaper, is "
        f"enough."
    )
    assert "contrastive is worse, but by less than .02" in one_stage(-0.006, 0.05)


def test_cannot_tell_says_how_many_queries_the_margin_takes():
    low, high = interval(-0.01, 0.3, 0.05)
    for_difference, for_margin = queries_for_difference(0.02, 0.3), queries_for_margin(0.02, 0.3)
    assert (for_difference, for_margin) == (1768, 1929)
    assert one_stage(-0.01, 0.3) == (
        f"Was fine-tuning worth it? These 400 queries cannot tell: contrastive scores .0100 nDCG@10 below the first "
        f"stage, somewhere between {low} below and {high} above (95 % interval). To show a true difference of .02 you "
        "would need about 1,800 queries, to show that the two are the same within ±.02 "
        "about 2,000 queries if they are "
        f"(80 % power)."
    )


def test_without_a_margin_it_says_what_would_have_shown_and_plans_on_no_observed_difference():
    text = one_stage(-0.01, 0.3, None)
    size = smallest_difference(N, 0.3)
    assert size == pytest.approx(TTestPower().solve_power(nobs=N, power=0.8, alpha=0.05) * 0.3, abs=1e-6)
    assert text.endswith(
        f"With these queries a true difference of {size:.4f} would show with 80 % power. The recipe declares no "
        "margin, so that the two are the same cannot be shown either."
    )
    assert "you would need" not in text


def test_a_margin_chosen_after_the_run_is_said_to_be():
    late = Margin(value=0.02, source="command line", before=False)
    for by, sd in ((0.003, 0.1), (0.006, 0.05), (-0.01, 0.3)):
        assert ", a margin chosen after the results" in one_stage(by, sd, late)


def test_of_two_stages_the_second_is_asked_about_with_the_simultaneous_interval():
    found = stages(BASE, shifted(0.05, 0.1), shifted(0.05, 0.1) + 0.2 * NOISE[::-1] - 0.01, margin=DECLARED)
    row = next(row for row in found.rows if (row.left, row.right) == ("contrastive", "distill"))
    values = [list(entry.measured[0].values["nDCG@10"].values()) for entry in found.systems[1:]]
    assert found.method == "max-t"
    assert row.judgment.p == pytest.approx(stats.ttest_rel(values[1], values[0]).pvalue, abs=0.02)
    (text,) = paragraphs(found, {"distill": Cost(seconds=250.2)})
    assert text.startswith(
        "Was the second stage worth it? These 400 queries of dl20 over bm25 cannot tell: distill scores .0100 nDCG@10"
    )
    assert "(95 % interval, simultaneous over 3 comparisons)" in text
    low, high = stats.t.interval(1 - row.judgment.level, N - 1, row.paired.difference, row.paired.sd / np.sqrt(N))
    assert f"somewhere between {figure(low)} below and {figure(high)} above" in text
    alone = stats.t.interval(0.95, N - 1, row.paired.difference, row.paired.sd / np.sqrt(N))
    bonferroni = stats.t.interval(1 - 0.05 / 3, N - 1, row.paired.difference, row.paired.sd / np.sqrt(N))
    assert bonferroni[0] < low < alone[0]
    assert "Distill took 4 min 10 s more of training." in text


def test_the_rows_of_stages_stand_in_order_in_one_family():
    found = stages(BASE, shifted(0.05, 0.1), shifted(0.06, 0.1), shifted(0.06, 0.2))
    first, cl, kd, last = (entry.label for entry in found.systems)
    assert [(row.right, row.left) for row in found.rows] == [
        (cl, first),
        (kd, cl),
        (kd, first),
        (last, kd),
        (last, first),
    ]
    assert found.family == 5
    assert all(row.is_primary for row in found.rows)
    questions = [one.question for one in answers(found)]
    assert questions == [
        "Was fine-tuning by contrastive worth it?",
        "Was the second stage worth it?",
        "Was fine-tuning up to distill worth it?",
        "Was the third stage worth it?",
        "Was fine-tuning up to polish worth it?",
    ]
    (text,) = paragraphs(found)
    assert text.count("?") == 2
    assert "Was the second stage worth it?" in text
    assert "Was the third stage worth it?" in text


def test_a_reused_stage_says_where_its_cost_was_paid():
    text = alone(stages(BASE, shifted(0.05, 0.1)), {"contrastive": Cost(seconds=61, reused_from="brisk-otter")})
    assert text.endswith("Its training took 1 min 1 s, in run brisk-otter, from which it was reused.")


def test_the_cost_against_the_first_stage_is_that_of_all_stages_up_to_there():
    rows = answers(
        stages(BASE, shifted(0.05, 0.1), shifted(0.06, 0.1)),
        {"contrastive": Cost(seconds=100), "distill": Cost(seconds=28)},
    )
    told = {(one.left, one.right): one.text for one in rows}
    first = rows[0].left
    assert "Distill took 28 s more of training." in told["contrastive", "distill"]
    assert "Its 2 stages took 2 min 8 s of training." in told[first, "distill"]
    unknown = answers(stages(BASE, shifted(0.05, 0.1), shifted(0.06, 0.1)), {"distill": Cost(seconds=28)})
    (text,) = (one.text for one in unknown if (one.left, one.right) == (first, "distill"))
    assert "training" not in text


def test_differences_without_spread_have_the_p_of_flipped_signs():
    text = alone(stages(BASE[:5], BASE[:5] + 0.125))
    assert text == (
        "Was fine-tuning worth it? These 5 queries cannot tell: contrastive scores .1250 nDCG@10 above the first stage "
        "on every query. There is no spread to measure that by: by flipped signs the smallest possible p is 0.062. The "
        "recipe declares no margin, so that the two are the same cannot be shown either."
    )
    text = alone(stages(BASE[:8], BASE[:8] + 0.125))
    assert text == (
        "Was fine-tuning worth it? Yes: contrastive scores .1250 nDCG@10 above the first stage on every query. There "
        "is no spread to measure that by; by the exact test of flipped signs p is 0.0078."
    )
    same = alone(stages(BASE, BASE, margin=DECLARED))
    assert same.startswith(
        "Was fine-tuning worth it? No: contrastive and the first stage are the same within ±.02 nDCG@10, "
        "declared before as too small to matter; their means are the same, somewhere between 0 and 0 above (90 % "
        "interval)."
    )


def test_every_answer_agrees_with_its_verdict_also_where_few_queries_differ():
    first = {
        "better": "Yes",
        "worse": "No",
        "equivalent": "No",
        "different but negligible": "No",
        "cannot tell": "These",
    }
    for differ in (0, 1, 4, 5, 6, 8, 12, 40):
        for gain in (0.001, 0.2):
            for margin in (None, DECLARED):
                right = BASE[:60].copy()
                right[:differ] += gain
                found = stages(BASE[:60], right, margin=margin)
                (one,) = answers(found)
                assert one.verdict == found.rows[0].verdict
                assert one.text.split(" ")[0].rstrip(":,") == first[one.verdict], one.text


def test_one_query_that_differs_is_said_to_be_the_only_one():
    other = BASE[:20].copy()
    other[3] += 0.2
    (text,) = paragraphs(stages(BASE[:20], other))
    assert "Only 1 query differs: by flipped signs the smallest possible p is 1." in text


def test_two_rankings_are_asked_about_by_their_names():
    found = compare([system("A", BASE), system("B", shifted(0.05, 0.1))], ["nDCG@10"])
    (text,) = paragraphs(found)
    assert text.startswith("Is B better than A? Yes: B scores .0500 nDCG@10 above A,")


@pytest.mark.parametrize(
    ("correction", "said"), [("none", "95 % interval)"), ("bh", "false coverage rate over 2 comparisons")]
)
def test_the_correction_is_named_as_what_it_is(correction, said):
    systems = [system("A", BASE), system("B", shifted(0.05, 0.1)), system("C", shifted(0.04, 0.1))]
    found = compare(systems, ["nDCG@10"], terms=Terms(correction=correction))
    assert all(said in one.text for one in answers(found))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (59.6, "1 min"), (250.2, "4 min 10 s"), (3600, "1 h"), (11_100, "3 h 5 min")],
)
def test_a_duration_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_baseline_beside_a_chain_changes_no_answer_of_its_stages_and_is_asked_by_name():
    plain = stages(BASE, BASE + 0.1 + NOISE / 50)
    other = system("reranker", BASE + 0.05 + NOISE[::-1] / 50, is_fixed=True, is_baseline=True)
    beside = compare([*plain.systems, other], ["nDCG@10"], terms=Terms(pairs="stages"))
    costs = {"contrastive": Cost(seconds=30.0)}
    assert paragraphs(beside, costs) == paragraphs(plain, costs) != ()
    asked = {(answer.left, answer.right): answer for answer in answers(beside, costs)}
    assert asked["first-stage", "reranker"].question == "Is reranker better than the first stage?"
    assert asked["reranker", "contrastive"].question == "Is contrastive better than reranker?"
    assert [pair for pair, answer in asked.items() if answer.is_main] == [("first-stage", "contrastive")]
    assert [pair for pair, answer in asked.items() if "of training" in answer.text] == [("first-stage", "contrastive")]
