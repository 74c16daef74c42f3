"""Matrices from their file to runs: what they stand for, what they come to, and what is queued when asked again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner

from cerank import recipes
from cerank.app.lab import Lab
from cerank.app.matrix import matrix_runs
from cerank.app.rankings import factor_table
from cerank.app.rankings.factor_table import EffectRequest
from cerank.cli.typer_app import app
from cerank.core.metrics import Event
from cerank.errors import CerankError, MissingError, RecipeError, UsageError
from cerank.files import journal, json_records
from cerank.files.lease import Lease
from cerank.machine.devices import Device
from cerank.runs import run_store
from cerank.runs.declared_records import MATRICES
from cerank.runs.layout import QueueFolder
from cerank.runs.records import ReusedStage, decode_measures
from cerank.worker.__main__ import run_attempt
from cerank.worker.run_context import StopFlag
from tests.json_documents import document_of
from tests.refusals import refused
from tests.worker.small import small_plan

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHAINS = {"cl": ["contrastive"], "kd": ["distill"], "cl-kd": ["contrastive", "distill"]}


def unheard(_text: str) -> None:
    """What is said of the looking is nobody's here."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A matrix' file with its recipes, and a lab whose queue nobody serves."""
    plan, settings = small_plan(tmp_path)
    changed = {
        name: msgspec.structs.replace(stage, steps=6, validate_every=3) for name, stage in plan.recipe.stages.items()
    }
    (tmp_path / "both.toml").write_text(recipes.render(msgspec.structs.replace(plan.recipe, stages=changed)))
    for name, chain in CHAINS.items():
        text = f'extends = "./both.toml"\nname = "{name}"\nchain = {chain}\n'
        (tmp_path / f"{name}.toml").write_text(text.replace("'", '"'))
    file = tmp_path / "grid.toml"
    file.write_text('name = "grid"\nrecipes = ["./cl.toml", "./kd.toml", "./cl-kd.toml"]\nseeds = [1, 2]\n')
    QueueFolder(settings.lab).path.mkdir(parents=True)
    lab = Lab(settings, devices=(Device("cpu"),))
    with Lease.take(QueueFolder(settings.lab).lease):
        yield SimpleNamespace(file=file, settings=settings, lab=lab, folder=tmp_path, plan=plan)


def grid_of(made: SimpleNamespace, *overrides: str, **changes: object) -> matrix_runs.MatrixRuns:
    return matrix_runs.load_runs(recipes.load_matrix(str(made.file), changes), overrides)


def work_off(lab: Lab) -> None:
    """Carries out what is queued, in order, in this process."""
    for folder in lab.queued():
        with Lease.take(folder.lease, NOW):
            assert run_attempt(folder, StopFlag(folder.stop)) == 0, folder.failure.read_text()


def test_a_matrix_is_each_recipe_under_each_seed_and_base_recipes_side_by_side(made: SimpleNamespace) -> None:
    found = grid_of(made)
    assert [(cell.recipe.name, cell.recipe.seed) for cell in found.cells] == [
        (name, seed) for seed in (1, 2) for name in ("cl", "kd", "cl-kd")
    ]
    assert found.baseline == "cl"
    assert len(grid_of(made, bases=[made.plan.recipe.base, "minilm"], seeds=[]).cells) == 6


def test_what_a_matrix_lays_over_its_recipes_goes_where_there_is_a_place_and_options_win(made: SimpleNamespace) -> None:
    made.file.write_text(
        made.file.read_text()
        + 'depth = 3\n[settings]\n"stages.distill.learning_rate" = 1e-4\n"data.validation" = "./v"\n'
    )
    first, *_ = (cell.recipe for cell in grid_of(made, "stages.distill.learning_rate=3e-4", "seed=9").cells)
    assert first.data.depth == 3
    assert first.data.validation == str(made.folder / "v")
    assert first.stages["distill"].learning_rate == 3e-4


@pytest.mark.parametrize(
    ("changes", "overrides", "match"),
    [
        ({}, ["stages.destill.steps=3"], "unknown-stage stages.destill"),
        ({}, ["stages.distill.steps=-3"], "recipe stages.distill.steps"),
        ({"seeds": list(range(400))}, [], "matrix-too-large 500"),
        ({"recipes": ["./nothing.toml"]}, [], "recipe-unreadable ./nothing.toml"),
    ],
)
def test_what_cannot_be_a_matrix_is_refused(made: SimpleNamespace, changes: dict, overrides: list, match: str) -> None:
    with refused(CerankError, *match.split()):
        grid_of(made, *overrides, **changes)


def test_recipes_of_one_name_or_tested_differently_make_no_matrix(made: SimpleNamespace) -> None:
    twin = made.folder / "twin.toml"
    twin.write_text('extends = "./cl.toml"\n')
    with refused(UsageError, "name-twice", "cl"):
        grid_of(made, recipes=[str(made.folder / "cl.toml"), str(twin)])
    twin.write_text('extends = "./cl.toml"\nname = "twin"\n[data]\ndepth = 2\n')
    with refused(UsageError, "settings-differ", "depth"):
        grid_of(made, recipes=[str(made.folder / "cl.toml"), str(twin)])


def test_the_outline_counts_shared_stages_once_and_takes_a_persons_word_for_the_speed(made: SimpleNamespace) -> None:
    found = matrix_runs.outline(grid_of(made), made.settings, pairs_per_second=100.0)
    assert [row.taken for row in found.rows] == [(), (), ("contrastive",)] * 2
    work = {part.part: part for part in found.work}
    assert work["train contrastive"].units == 2 * 6
    assert work["train contrastive"].minutes == pytest.approx(2 * 6 * 2 * 4 / 100 / 60)
    assert {part.part: part.units for part in found.shared}["train contrastive"] == 2 * 6
    assert work["train distill"].units == 4 * 6  # on the base and after the contrastive stage: two trainings each seed
    assert found.needs == ()
    assert found.comparisons == 2 * 2 * 2  # recipes beside the baseline, first stages, measures
    assert matrix_runs.estimates.total(matrix_runs.outline(grid_of(made), made.settings).work) is None


@pytest.mark.parametrize(
    ("primary", "count"),
    [
        ("kd against cl", 2 * 2),
        ("RR@10: kd against cl", 2),
        ("kd against nothing", 0),
        ("RR@10: cl-kd against kd", 2),  # neither is the baseline
    ],
)
def test_the_family_of_the_outline_is_that_of_its_primary_questions(
    made: SimpleNamespace, primary: str, count: int
) -> None:
    grid = grid_of(made, f'evaluate.primary=["{primary}"]')
    assert matrix_runs.outline(grid, made.settings).comparisons == count


def test_everything_that_is_missing_is_named_at_once(made: SimpleNamespace) -> None:
    changes = {"test": ["dev-small", str(made.folder / "gone")], "first_stages": ["bm25", "contriever"]}
    overrides = ["stages.distill.teacher=nobody", "data.train=msmarco-train[:50%]", "base=electra"]
    found = matrix_runs.outline(grid_of(made, *overrides, **changes), made.settings)
    kinds = {(need.kind, need.name) for need in found.needs}
    assert {("base", "electra"), ("dataset", "dev-small"), ("dataset", "msmarco-train")} <= kinds
    assert ("dataset", str(made.folder / "gone")) in kinds
    assert {("first stage", "contriever on dev-small"), ("teacher", "nobody on msmarco-train")} <= kinds
    assert all(need.text and need.how for need in found.needs if need.kind != "teacher")
    how = {need.name: need.how for need in found.needs}
    assert str(made.settings.cache / "runs" / "dev-small" / "contriever.run") in how["contriever on dev-small"]
    work = {part.part: part for part in found.work}
    assert work["re-rank dev-small by contrastive"].units == 2 * 6980  # as the catalog has it


def test_missing_rankings_of_negatives_and_runs_that_score_them_are_named(made: SimpleNamespace) -> None:
    sources = '[{source = "mined", run = "gone.run"}, {source = "mined", run = "oracle", ranks = [2, 4]}]'
    given = (
        f"stages.contrastive.negative_sources={sources}",
        'stages.contrastive.false_negatives={scores = "nowhere.run", max_score = 1.0}',
    )
    data = str(made.folder / "data")
    needs = matrix_runs.outline(grid_of(made, *given, recipes=[str(made.folder / "cl-kd.toml")]), made.settings).needs
    assert {(need.kind, need.name) for need in needs} == {
        ("first stage", f"gone.run on {data}"),
        ("scores of negatives", f"nowhere.run on {data}"),
    }
    assert all(need.text and need.how for need in needs)
    there = [text.replace("gone.run", "bm25").replace("nowhere.run", "oracle") for text in given]
    assert matrix_runs.outline(grid_of(made, *there), made.settings).needs == ()


def test_the_outline_counts_a_baseline_that_the_runs_share_once(made: SimpleNamespace) -> None:
    model = made.plan.recipe.base
    found = matrix_runs.outline(grid_of(made, f'baselines=["{model}"]'), made.settings)
    (test,) = made.plan.recipe.data.test
    name = f"re-rank {test} by {Path(model).name}"
    (once,) = (part for part in found.work if part.part == name)
    (again,) = (part for part in found.shared if part.part == name)
    assert again.units == 5 * once.units > 0  # six runs
    cut = 'stages.distill.passages={aggregation = "MaxP", length = 6, stride = 3}'  # of the stage, and not the baseline
    assert [part for part in matrix_runs.outline(grid_of(made, cut, f'baselines=["{model}"]'), made.settings).work
            if part.part == name] == [once]  # fmt: skip


def test_a_measure_that_would_be_zero_on_every_query_is_named_before_anything_runs(made: SimpleNamespace) -> None:
    found = matrix_runs.outline(grid_of(made, 'evaluate.measures=["RR(rel=9)@10"]'), made.settings)
    (need,) = [need for need in found.needs if need.kind == "measures"]
    assert "RR(rel=9)@10" in need.text + need.name + need.how
    assert not [need for need in matrix_runs.outline(grid_of(made), made.settings).needs if need.kind == "measures"]


def test_a_matrix_runs_to_its_end_trains_what_is_shared_once_and_queues_only_what_is_missing(
    made: SimpleNamespace,
) -> None:
    grid = grid_of(made, seeds=[1])
    found = matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard)
    record = MATRICES.load_if_there(made.settings.lab, "grid")
    assert record == found.record
    assert [cell.run for cell in record.cells] == [folder.name for folder in found.added]
    for folder in found.added:  # each can be asked for by itself
        assert recipes.load(str(folder.recipe)).recipe.chain == run_store.load_plan(folder).recipe.chain
    assert (record.baseline, record.tests, record.first_stages) == (
        "cl",
        made.plan.recipe.data.test,
        ("bm25", "oracle"),
    )
    assert record.measures == {made.plan.recipe.data.test[0]: ("nDCG@10", "RR@10")}
    again = matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard)
    assert (again.added, len(again.there)) == ((), 3)
    work_off(made.lab)
    cl, kd, both = found.added
    assert json_records.load(both.reused_stage(0, "contrastive"), ReusedStage).run == cl.name
    assert not kd.reused_stage(0, "distill").exists()
    assert not both.reused_stage(1, "distill").exists()
    trained = [
        event.text.partition(":")[0]
        for folder in found.added
        for event in journal.read_valid_rows(folder.events, Event)[0]
        if event.kind == "checkpoint saved"
    ]
    assert {text.split()[0] for text in trained} == {"contrastive", "distill"}
    assert sum(text == "contrastive step 6" for text in trained) == 1
    assert [made.lab.status(folder).state for folder in found.added] == ["finished"] * 3
    outline = matrix_runs.outline(grid, made.settings)
    assert [row.state for row in outline.rows] == ["finished"] * 3
    assert outline.work == ()
    run_store.remove(both)
    some = matrix_runs.outline(grid, made.settings, pairs_per_second=100.0)
    assert some.tasks is not None
    assert len(some.tasks) == 1, "the first stage is there in a finished run"
    assert matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard).added
    run_store.remove(kd)
    added = matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard).added
    assert [run_store.load_plan(folder).recipe.name for folder in added] == ["kd"]


def test_an_equal_run_under_another_name_is_not_taken_for_the_matrixs_own(made: SimpleNamespace) -> None:
    only = grid_of(made, recipes=[str(made.folder / "cl.toml")], seeds=[1])
    (alone,) = matrix_runs.queue_missing_runs(made.lab, only, NOW, unheard).added
    twin = made.folder / "twin.toml"
    twin.write_text('extends = "./cl.toml"\nname = "twin"\n')
    both = grid_of(made, name="other", recipes=[str(twin), str(made.folder / "kd.toml")], seeds=[1])
    (added, _) = matrix_runs.queue_missing_runs(made.lab, both, NOW, unheard).added
    assert run_store.load_plan(added).fingerprint == run_store.load_plan(alone).fingerprint
    assert run_store.load_plan(added).recipe.name == "twin"


def test_a_mistake_in_the_matrixs_settings_is_not_blamed_on_the_command_line_alone(made: SimpleNamespace) -> None:
    made.file.write_text(made.file.read_text() + '[settings]\n"stages.distill.steps" = -3\n')
    with refused(CerankError, "recipe", "stages.distill.steps"):
        grid_of(made)


def test_seeds_and_recipes_may_be_added_to_a_matrix_and_another_family_may_not(made: SimpleNamespace) -> None:
    matrix_runs.queue_missing_runs(made.lab, grid_of(made, seeds=[1]), NOW, unheard)
    more = matrix_runs.queue_missing_runs(made.lab, grid_of(made, seeds=[2]), NOW, unheard)
    assert [(cell.recipe, cell.seed) for cell in more.record.cells] == [
        (name, seed) for seed in (1, 2) for name in ("cl", "kd", "cl-kd")
    ]
    before = len(run_store.folders(made.settings.lab))
    with refused(UsageError, "matrix-exists", "depth") as caught:
        matrix_runs.queue_missing_runs(made.lab, grid_of(made, depth=2), NOW, unheard)
    assert "--name" in caught.value.hint
    with refused(UsageError, "matrix-exists", "baseline"):  # recipes left out may take it with them
        matrix_runs.queue_missing_runs(
            made.lab, grid_of(made, recipes=[str(made.folder / "kd.toml")], seeds=[1]), NOW, unheard
        )
    assert MATRICES.load_if_there(made.settings.lab, "grid").baseline == "cl"
    assert len(run_store.folders(made.settings.lab)) == before


def test_a_matrix_that_cannot_be_planned_leaves_nothing_in_the_lab_and_says_every_mistake(
    made: SimpleNamespace,
) -> None:
    grid = grid_of(made, "stages.distill.teacher=nobody", test=[str(made.folder / "gone")])
    with pytest.raises(MissingError) as caught:
        matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard)
    assert {line.partition(":")[0].split()[0] for line in caught.value.what.split("\n")} == {
        "dataset",
        "teacher",
        "first",
    }
    assert str(made.folder / "gone") in caught.value.what
    assert run_store.folders(made.settings.lab) == []
    assert not list(made.settings.lab.glob("matrices/*"))


FACTORS = """
[factors.rate.low]
[factors.rate.high]
"stages.distill.learning_rate" = 1e-3

[factors.scores.fp32]
[factors.scores.bf16]
"evaluate.score_precision" = "bf16"
"""


def test_factors_multiply_the_recipes_that_they_change(made: SimpleNamespace) -> None:
    made.file.write_text(made.file.read_text() + FACTORS)
    found = grid_of(made, seeds=[1])
    assert [(cell.varied, cell.levels) for cell in found.cells[:2]] == [
        ("cl", {"scores": "fp32"}),  # it has no stage that distills
        ("cl", {"scores": "bf16"}),
    ]
    assert [cell.recipe.name for cell in found.cells[2:6]] == [
        "kd",
        "kd scores=bf16",
        "kd rate=high",
        "kd rate=high scores=bf16",
    ]
    assert found.cells[4].recipe.stages["distill"].learning_rate == 1e-3
    assert found.baseline == "cl"
    record = matrix_runs.queue_missing_runs(made.lab, found, NOW, unheard).record
    assert record.factors == {"rate": ("low", "high"), "scores": ("fp32", "bf16")}
    assert (record.cells[5].varied, record.cells[5].levels) == ("kd", {"rate": "high", "scores": "bf16"})
    made.file.write_text(
        made.file.read_text() + '[factors.other.a]\n[factors.other.b]\n"stages.contrastive.clip" = 2.0\n'
    )
    with refused(UsageError, "matrix-exists", "factors"):
        matrix_runs.queue_missing_runs(made.lab, grid_of(made, seeds=[1]), NOW, unheard)


@pytest.mark.parametrize("path", ["stages.distill.learning_rate", "stages.distill", "evaluate. score_precision"])
def test_an_option_does_not_silently_undo_a_factor(made: SimpleNamespace, path: str) -> None:
    made.file.write_text(made.file.read_text() + FACTORS)
    with refused(RecipeError, "recipe", path, "scores" if path.startswith("evaluate") else "rate"):
        grid_of(made, f"{path}=3e-4")
    assert grid_of(made, "stages.distill.steps=5").cells[-1].recipe.stages["distill"].steps == 5


def test_the_effects_of_a_matrix_are_those_of_its_finished_runs(made: SimpleNamespace) -> None:
    made.file.write_text(made.file.read_text() + FACTORS)
    grid = grid_of(made, recipes=[str(made.folder / "cl-kd.toml")], seeds=[1])
    request = EffectRequest(matrix="grid", first_stage="bm25")
    with refused(UsageError, "matrix-not-found", "grid"):
        factor_table.study(made.settings, request)
    queued = matrix_runs.queue_missing_runs(made.lab, grid, NOW, unheard)
    with refused(MissingError, "matrix-unfinished", 4):
        factor_table.study(made.settings, request)
    work_off(made.lab)
    done = factor_table.study(made.settings, msgspec.structs.replace(request, by=("rate", "scores")))
    means = []
    for folder in queued.added:
        rows = decode_measures(folder.measures("distill", done.record.tests[0], "bm25").read_bytes())
        means.append(sum(row.measures["nDCG@10"] for row in rows) / len(rows))
    rate, scores = done.effects.effects
    assert rate.figures.difference == pytest.approx((means[2] + means[3] - means[0] - means[1]) / 2)
    assert scores.figures.difference == pytest.approx((means[1] + means[3] - means[0] - means[2]) / 2)
    assert done.interaction.factors == ("rate", "scores")
    gain = factor_table.study(made.settings, msgspec.structs.replace(request, of_gain=True))
    assert gain.effects.effects[0].figures.difference == pytest.approx(rate.figures.difference)  # one stage before it
    command = ["effects", "grid", "--first-stage", "bm25", "--by", "rate,scores", "--json"]
    result = CliRunner().invoke(app, [*command, "--lab", str(made.settings.lab), "--cache", str(made.settings.cache)])
    found = document_of(result.stdout, "effects", "means", "interaction")
    assert [row["factor"] for row in found["effects"]] == ["rate", "scores"]
    assert (found["meta"]["correction"], found["meta"]["family"]) == ("holm", 2)
    words = ["effects", "grid", "--first-stage", "bm25", "--json", "--lab", str(made.settings.lab)]
    alone = CliRunner().invoke(app, [*words, "--cache", str(made.settings.cache)])
    assert {"interaction", "means"}.isdisjoint(document_of(alone.stdout, "effects"))
    for changes, code in (({"first_stage": ""}, "ranking-not-unique"), ({"by": ("rate",)}, "factor-pair")):
        with refused(UsageError, code):
            factor_table.study(made.settings, msgspec.structs.replace(request, **changes))
