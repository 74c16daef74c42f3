"""Margins in percent of a matrix' effects: shares of what the baseline's last stage reaches."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank.app.rankings import factor_table
from cerank.app.rankings.factor_table import EffectRequest
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.evaluation.comparison_rows import FEW_MARK, NOTE_OF_STEP, STEP_MARK
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.runs import test_set_looks
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import RunFolder
from cerank.runs.records import decode_measures, encode_measures
from cerank.settings import Settings
from cerank.text.table_data import records
from tests.app.made_runs import made_run
from tests.refusals import refused
from tests.worker.small import small_plan

SKILLS = {"weak": 0.2, "strong": 0.9}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Settings, RunFolder]:
    """The settings of a lab with a matrix of two recipes, and the run of its baseline, which is the second of them."""
    plan, settings = small_plan(tmp_path)
    recipes = {name: msgspec.structs.replace(plan.recipe, name=name) for name in SKILLS}
    runs = {
        name: made_run(settings, msgspec.structs.replace(plan, recipe=recipe), name, skill=SKILLS[name])
        for name, recipe in recipes.items()
    }
    record = MatrixRecord(
        name="grid",
        sha256="5" * 64,
        baseline="strong",
        tests=plan.recipe.data.test,
        first_stages=plan.recipe.data.first_stages,
        depth=plan.recipe.data.depth,
        measures={test: plan.measures_on(test) for test in plan.recipe.data.test},
        cells=tuple(
            MatrixCell(run=run.name, recipe=name, base=plan.recipe.base, seed=42) for name, run in runs.items()
        ),
    )
    MATRICES.save(settings.lab, record)
    return settings, runs["strong"]


def request(*, of_gain: bool = False) -> EffectRequest:
    return EffectRequest(
        matrix="grid", measure="nDCG@10", first_stage="bm25", margins=("nDCG@10=10%",), of_gain=of_gain
    )


def test_a_margin_in_percent_is_a_share_of_what_the_baselines_last_stage_reaches(
    made: tuple[Settings, RunFolder],
) -> None:
    settings, baseline = made
    done = factor_table.study(settings, request())
    rows = decode_measures(baseline.measures("distill", done.record.tests[0], "bm25").read_bytes())
    mean = sum(row.measures["nDCG@10"] for row in rows) / len(rows)
    assert done.effects.margin is not None
    assert done.effects.margin.value == pytest.approx(mean / 10)
    gain = factor_table.study(settings, request(of_gain=True)).effects.margin
    assert gain is not None
    assert gain.value == pytest.approx(mean / 10)  # and no share of the gain, which may be nothing or below 0


def test_p_of_one_effect_and_p_adjusted_over_all_have_keys_of_their_own(made: tuple[Settings, RunFolder]) -> None:
    done = factor_table.study(made[0], request())
    (effect,) = done.effects.effects
    raised = msgspec.structs.replace(effect.judgment, p=0.01, p_corrected=0.04)
    effects = (msgspec.structs.replace(effect, judgment=raised),)
    done = msgspec.structs.replace(done, effects=msgspec.structs.replace(done.effects, effects=effects))
    (row,) = records(factor_table.tables(done)[0])
    assert (row["p"], row["p_corrected"], row["basis"]) == (0.01, 0.04, effect.judgment.basis)


@pytest.mark.parametrize(("losses", "has_mark"), [(2, True), (8, False)])
def test_the_interval_of_an_effect_on_few_queries_is_marked_for_people(
    made: tuple[Settings, RunFolder], losses: int, has_mark: bool
) -> None:
    done = factor_table.study(made[0], request())
    (effect,) = done.effects.effects
    figures = msgspec.structs.replace(effect.figures, wins=0, losses=losses)
    effects = (msgspec.structs.replace(effect, figures=figures),)
    done = msgspec.structs.replace(done, effects=msgspec.structs.replace(done.effects, effects=effects))
    (for_people,) = factor_table.tables(done, is_marked=True)
    (plain,) = factor_table.tables(done)
    assert (FEW_MARK in str(records(for_people)[0]["high"])) is has_mark
    assert any(FEW_MARK in note for note in for_people.notes) is has_mark
    assert records(plain)[0]["high"] == effect.judgment.high


@pytest.mark.parametrize(("low", "is_marked"), [(-0.01, True), (0.01, False)])
def test_an_effect_whose_interval_says_less_than_its_verdict_is_marked_for_people(
    made: tuple[Settings, RunFolder], low: float, is_marked: bool
) -> None:
    done = factor_table.study(made[0], request())
    (effect,) = done.effects.effects
    judgment = msgspec.structs.replace(effect.judgment, verdict="better", p_corrected=0.04, low=low, high=0.2)
    effects = (msgspec.structs.replace(effect, judgment=judgment),)
    done = msgspec.structs.replace(done, effects=msgspec.structs.replace(done.effects, effects=effects))
    (for_people,) = factor_table.tables(done, is_marked=True)
    (plain,) = factor_table.tables(done)
    assert (STEP_MARK in str(records(for_people)[0]["high"])) is is_marked
    assert (NOTE_OF_STEP in for_people.notes) is is_marked
    assert records(plain)[0]["high"] == 0.2
    assert NOTE_OF_STEP not in plain.notes


def test_an_effect_counts_as_a_look_when_it_is_first_shown(made: tuple[Settings, RunFolder]) -> None:
    settings, _ = made
    words = ["effects", "grid", "-m", "nDCG@10", "--first-stage", "bm25", "--lab", str(settings.lab)]
    for more, looks in ([], 1), ([], 1), (["--gain"], 2):
        done = CliRunner().invoke(app, [*words, *more, "--cache", str(settings.cache)])
        assert done.exit_code == 0, done.output
        assert [look.by for look in test_set_looks.load_all(settings.lab)] == ["effects"] * looks
    effects = factor_table.study(settings, request()).effects.effects
    assert sum(map(len, test_set_looks.load_all(settings.lab)[0].comparisons.values())) == len(effects)


def test_a_margin_in_percent_of_a_baseline_that_scores_nothing_is_refused(made: tuple[Settings, RunFolder]) -> None:
    settings, baseline = made
    test = MATRICES.load_if_there(settings.lab, "grid").tests[0]
    path = baseline.measures("distill", test, "bm25")
    rows = decode_measures(path.read_bytes())
    path.write_bytes(encode_measures({name: {row.query_id: 0.0 for row in rows} for name in rows[0].measures}))
    with refused(UsageError, "share-of-zero", "nDCG@10", "10"):
        factor_table.study(settings, request())
