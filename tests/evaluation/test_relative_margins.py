"""Margins as shares of the baseline's mean: the same verdicts as the number that they come to."""

from __future__ import annotations

import numpy as np
import pytest

from cerank.app.comparison import margins
from cerank.errors import UsageError
from cerank.evaluation.compare import Condition, Measured, System, compare
from cerank.evaluation.comparison_rows import footnotes
from cerank.evaluation.verdicts.terms import Margin, Terms
from tests.refusals import refused

WHERE = Condition("c", "")


def system(label: str, values: np.ndarray) -> System:
    by_query = {f"q{place}": float(value) for place, value in enumerate(values)}
    return System(label=label, measured=(Measured(condition=WHERE, qrels_sha256="x", values={"nDCG@10": by_query}),))


def systems():
    random = np.random.default_rng(3)
    base = random.uniform(0.3, 0.6, 80)
    return [
        system(label, base + random.normal(mean, 0.05, 80)) for label, mean in (("a", 0), ("b", 0.004), ("c", 0.05))
    ]


@pytest.mark.parametrize("correction", ["holm", "max-t"])
def test_a_share_judges_as_the_number_it_comes_to(correction):
    made = systems()
    mean = float(np.mean(list(made[0].measured[0].values["nDCG@10"].values())))
    share = Terms(
        margins={"nDCG@10": Margin(value=0.0, share=0.06)},
        worth={"nDCG@10": Margin(value=0.0, share=0.08)},
        correction=correction,
    )
    number = Terms(
        margins={"nDCG@10": Margin(value=0.06 * mean)},
        worth={"nDCG@10": Margin(value=0.08 * mean)},
        correction=correction,
    )
    one, other = (compare(made, ["nDCG@10"], terms=terms) for terms in (share, number))
    for left, right in zip(one.rows, other.rows, strict=True):
        assert left.verdict == right.verdict
        assert left.judgment.p_equivalence_corrected == right.judgment.p_equivalence_corrected
        assert left.judgment.margin.value == pytest.approx(0.06 * mean)
        assert left.worth.answer == right.worth.answer
        assert left.risk == right.risk
    assert {row.verdict for row in one.rows} == {"equivalent", "better"}
    assert any("±6 % of the baseline's mean" in line for line in footnotes(one))


def test_each_pair_has_its_own_size():
    terms = Terms(margins={"nDCG@10": Margin(value=0.0, share=0.1)}, pairs="all")
    rows = compare(systems(), ["nDCG@10"], terms=terms).rows
    assert [row.judgment.margin.value for row in rows] == pytest.approx([0.1 * row.paired.mean_left for row in rows])


def test_shares_that_mean_nothing_are_refused():
    zero = [system("a", np.zeros(20)), system("b", np.linspace(0.1, 0.9, 20))]
    with refused(UsageError, "share-of-zero", "a"):
        compare(zero, ["nDCG@10"], terms=Terms(margins={"nDCG@10": Margin(value=0.0, share=0.1)}))
    with refused(UsageError, "margin-out-of-range"):
        compare(systems(), ["nDCG@10"], terms=Terms(margins={"nDCG@10": Margin(value=0.0, share=1.2)}))
    terms = Terms(margins={"nDCG@10": Margin(value=0.0, share=0.1)}, worth={"nDCG@10": Margin(value=0.01)})
    with refused(UsageError, "worth-below-margin"):
        compare(systems(), ["nDCG@10"], terms=terms)


def test_percentages_are_read_where_they_have_a_meaning():
    assert margins.typed(["nDCG@10=5%"])["nDCG@10"].share == pytest.approx(0.05)
    assert margins.typed(["nDCG@10=.05"])["nDCG@10"] == Margin(value=0.05)
    for text in ("nDCG@10=100%", "nDCG@10=%", "nDCG@10=0%", "nDCG@10=-5%"):
        with refused(UsageError, "margin-syntax"):
            margins.typed([text])
    with refused(UsageError, "margin-share"):
        margins.numbers(["nDCG@10=5%"])


def test_a_typed_margin_that_repeats_a_declared_share_stays_declared():
    declared = {"nDCG@10": Margin(value=0.0, share=0.05, source="declared plan", before=True)}
    assert margins.chosen(margins.typed(["nDCG@10=5%"]), declared)["nDCG@10"].before
    other = margins.chosen(margins.typed(["nDCG@10=6%"]), declared, because="a reason")["nDCG@10"]
    assert (other.before, other.because) == (False, "a reason")
    assert "5 % of the baseline's mean" in other.source


def test_a_recipe_and_a_matrix_declare_shares_and_refuse_what_is_none():
    from cerank.errors import RecipeError
    from cerank.recipes import loading
    from cerank.recipes.matrix_schema import matrix_from

    sizes = ['evaluate.margins={"nDCG@10" = "5%"}', 'evaluate.worth={"nDCG@10" = "7.5 %", "RR@10" = 0.02}']
    evaluate = loading.load("contrastive", sizes).recipe.evaluate
    assert (evaluate.margins, evaluate.worth) == ({"nDCG@10": "5%"}, {"nDCG@10": "7.5 %", "RR@10": 0.02})
    for wrong in ("5", "0%", "100%", "five%", "-5%", "nan%"):
        with refused(RecipeError, "recipe", "evaluate.margins"):
            loading.load("contrastive", [f'evaluate.margins={{"nDCG@10" = "{wrong}"}}'])
        with refused(RecipeError, "recipe", "worth.nDCG@10"):
            matrix_from({"name": "m", "recipes": ["contrastive"], "worth": {"nDCG@10": wrong}}, "m.toml")
    with refused(RecipeError, "recipe", "evaluate.harm"):
        loading.load("contrastive", ['evaluate.harm={"nDCG@10" = 0}'])


def test_declared_shares_are_shares_and_beside_numbers_nothing_counts_as_declared(tmp_path):
    from tests.app.made_runs import changed
    from tests.worker.small import small_plan

    plan, _ = small_plan(tmp_path, force=["shared_queries"])
    one, other, number = (
        margins.Source(changed(plan, seed=seed, margins={"nDCG@10": size}), "")
        for seed, size in ((1, "5%"), (2, "6 %"), (3, 0.02))
    )
    found = margins.declared(["nDCG@10"], [([one], [other])])["nDCG@10"]
    assert (found.share, found.value, found.before) == (0.05, 0.0, True)
    assert "6 % of the baseline's mean" in found.source
    mixed = margins.declared(["nDCG@10"], [([one], [number])])["nDCG@10"]
    assert (mixed.share, mixed.value, mixed.before) == (None, 0.02, False)
    assert "5 %" in mixed.source


def test_a_plan_with_a_share_has_a_hash_of_its_own_and_one_with_a_number_its_old(tmp_path):
    import msgspec

    from cerank.recipes.plan import Plan
    from tests.app.made_runs import changed
    from tests.worker.small import small_plan

    plan, _ = small_plan(tmp_path, force=["shared_queries"])
    share, number = (changed(plan, margins={"nDCG@10": size}) for size in ("5%", 0.05))
    assert share.fingerprint != number.fingerprint
    for each in (share, number):
        again = msgspec.json.decode(msgspec.json.encode(each), type=Plan)
        assert again == each
        assert again.fingerprint == each.fingerprint
