"""Cross-validation from a run for each fold to one comparison in which every query counts once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from cerank import recipes
from cerank.app import estimates, fold_runs, plans, run_request
from cerank.app.comparison import comparisons, named_systems, stage_costs
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.evidence import system_costs
from cerank.app.publishing.export_rankings import export_rankings
from cerank.app.rankings import cross_validation
from cerank.app.rankings.cross_validation import FoldRow
from cerank.app.report import measured_rows, report_scope
from cerank.app.rerank_dataset import checkpoint_folder
from cerank.app.run_request import RunRequest
from cerank.cli.typer_app import app
from cerank.errors import MissingError, UsageError
from cerank.evaluation.compare import Condition, Measured, System, compare
from cerank.evaluation.comparison_rows import FEW_MARK
from cerank.evaluation.studies.fold_blocks import fold_blocks
from cerank.runs import run_store, test_set_looks
from cerank.settings import Settings
from tests.json_documents import document_of
from tests.model_fixtures import write_tiny
from tests.refusals import refused
from tests.worker.small import STAGE, write_dataset
from tests.worker.test_whole_runs import forked

RECIPE = """
name = "small"
base = {base}
pooling = "mean"
chain = ["contrastive"]
force = ["shared_queries"]  # two words of twenty come again
[data]
first_stages = ["oracle"]
depth = 8
[evaluate]
measures = ["nDCG@10"]
margins = {{ "nDCG@10" = 0.05 }}
[stages.contrastive]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Settings of a lab, and the request that folds are made for."""
    folder = tmp_path_factory.mktemp("folds")
    stage = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (STAGE | {"steps": 10}).items())
    recipe = folder / "small.toml"
    recipe.write_text(RECIPE.format(base=json.dumps(str(write_tiny(folder / "base").folder))) + stage)
    settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
    return settings, RunRequest(recipes=(str(recipe),), dataset=str(write_dataset(folder / "data")), folds="3")


@pytest.fixture(scope="module")
def finished(lab):
    """The runs of three folds."""
    settings, request = lab
    runs = []
    for second, (of_fold, label) in enumerate(run_request.load_folds(request)):
        now = datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)
        plan = plans.plan_of(of_fold.recipe, settings, now=now, label=label)
        run = run_store.create(settings.lab, plan, of_fold.toml, now)
        assert forked(run) == (1, 0), run.log.read_text()
        runs.append(run)
    return settings, runs


def test_each_fold_is_tested_once_and_the_next_one_chooses_checkpoints(lab):
    _, request = lab
    data = [of_fold.recipe.data for of_fold, _ in run_request.load_folds(request)]
    assert [each.test[0].removeprefix(request.dataset) for each in data] == ["[fold=1/3]", "[fold=2/3]", "[fold=3/3]"]
    assert [each.validation for each in data] == [each.test[0] for each in (*data[1:], data[0])]
    assert [each.train.removeprefix(request.dataset) for each in data] == [
        "[fold!=1,2/3]", "[fold!=2,3/3]", "[fold!=3,1/3]",
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [{"dataset": ""}, {"tests": ("pydocs/test",)}, {"dataset": "pydocs/test[:50%]"}])
def test_folds_need_one_whole_dataset(lab, changes):
    with refused(UsageError, "folds-dataset"):
        run_request.load_folds(msgspec.structs.replace(lab[1], **changes))


@pytest.mark.slow  # three small runs
def test_the_pooled_comparison_has_each_query_once_as_the_run_of_its_fold_scored_it(finished):
    settings, runs = finished
    study = cross_validation.of_run(settings, runs[1].name, 0.95)
    (row,) = study.comparison.rows
    system = next(one for one in study.comparison.systems if one.label == row.right)
    pooled = system.measured[0].values["nDCG@10"]
    own = {}
    for run in runs:
        one = next(one for one in comparisons.of_run(run).systems if one.label == row.right)
        own |= one.measured[0].values["nDCG@10"]
    assert pooled == own
    assert len(pooled) == 40
    (blocks,) = [each.blocks for each in study.rows]
    assert sum(blocks.queries) == 40
    assert blocks.mean == pytest.approx(row.paired.difference)
    assert len(cross_validation.fold_table(study.rows, study.confidence).rows) == 1
    costs = [stage_costs.of_run(run, run_store.load_plan(run))[0] for run in runs]
    (target,) = named_systems.targets_of(settings.lab, [f"{runs[1].name}@folds"])
    (cost,) = system_costs.of_runs({"all": named_systems.runs_of(target)}, 0.0).values()
    assert (cost.seconds, cost.pairs) == (pytest.approx(sum(each.seconds for each in costs)), costs[0].pairs * 3)


@pytest.mark.slow
def test_the_pooled_comparison_counts_as_a_look_when_it_is_first_shown(finished):
    settings, runs = finished
    words = ["folds", runs[0].name, "--lab", str(settings.lab), "--cache", str(settings.cache)]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        assert [look.by for look in test_set_looks.load_all(settings.lab)] == ["folds"]
    document = document_of(done.stdout, "comparison", "folds")
    assert {type(row["p"]) for row in document["comparison"] if row["verdict"]} == {float}
    assert document["meta"]["family"] == sum(bool(row["verdict"]) for row in document["comparison"])


@pytest.mark.slow
def test_a_table_of_single_folds_says_how_all_are_seen_together(finished):
    settings, runs = finished
    one, other = (run_store.short_name(run) for run in runs[:2])
    places = ["--lab", str(settings.lab)]
    for words, is_single in (
        (["show", other], True),
        (["compare", f"{other}:first-stage", other], True),
        (["compare", f"{one}@folds:first-stage", f"{one}@folds"], False),
    ):
        done = CliRunner().invoke(app, [*words, *places])
        assert done.exit_code == 0, done.output
        assert (f"cerank folds {other}" in done.stderr) == is_single
        assert done.stderr.count("@folds in compare") == is_single


@pytest.mark.slow
def test_a_fold_without_a_finished_run_is_named(finished):
    settings, runs = finished
    hidden = runs[2].path.rename(settings.lab / "elsewhere")
    try:
        with refused(MissingError, "folds-missing", 3):
            cross_validation.of_run(settings, runs[0].name, 0.95)
    finally:
        hidden.rename(runs[2].path)


@pytest.mark.slow
def test_a_newer_run_with_another_base_of_the_same_name_is_of_no_set_with_the_others(finished):
    settings, runs = finished
    plan = run_store.load_plan(runs[0])
    inputs = tuple(
        msgspec.structs.replace(each, sha256="0" * 64) if each.role == "base" else each for each in plan.inputs
    )
    now = datetime(2026, 1, 2, 4, tzinfo=UTC)
    newer = run_store.create(settings.lab, msgspec.structs.replace(plan, inputs=inputs), b"", now)
    newer.done.write_bytes(runs[0].done.read_bytes())
    try:
        assert [folder for folder, _ in fold_runs.in_order(settings.lab, runs[1])] == runs
        with refused(MissingError, "folds-missing", 2):
            fold_runs.in_order(settings.lab, newer)
    finally:
        newer.path.rename(settings.lab / "newer")


@pytest.mark.slow
def test_a_run_of_no_fold_is_refused(lab):
    settings, request = lab
    data = {"train": f"{request.dataset}[:50%]", "validation": f"{request.dataset}[50%:70%]"}
    overrides = [*(f"data.{key}={value}" for key, value in data.items()), f'data.test=["{request.dataset}[70%:]"]']
    loaded = recipes.load(request.recipes[0], overrides)
    now = datetime(2026, 1, 3, tzinfo=UTC)
    run = run_store.create(settings.lab, plans.plan_of(plans.absolute(loaded.recipe), settings, now=now), b"", now)
    with refused(UsageError, "not-a-fold") as caught:
        cross_validation.of_run(settings, run.name, 0.95)
    assert run_store.short_name(run) in caught.value.what


@pytest.mark.slow
def test_the_runs_of_all_folds_are_one_system_beside_runs_and_files_of_all_queries(finished, lab, tmp_path):
    settings, runs = finished
    _, request = lab
    name = run_store.short_name(runs[2])
    first = Path(request.dataset) / "runs" / "oracle.run"
    targets = (f"{name}@folds:first-stage", f"{name}@folds", f"file={first}")
    comparison = comparisons.compare(settings, ComparisonRequest(targets=targets))
    own, trained, file = comparison.systems
    assert (own.label, trained.label) == ("small:first-stage", "small")
    assert [len(fold) for fold in trained.folds] == [14, 13, 13]
    values = [system.measured[0].values["nDCG@10"] for system in (own, trained, file)]
    assert all(len(of) == 40 for of in values)
    of_runs = {}
    for run in runs:
        of_runs |= comparisons.of_run(run).systems[-1].measured[0].values["nDCG@10"]
    assert values[1] == of_runs
    rows = cross_validation.fold_rows(comparison)
    assert [row.right for row in rows] == ["small", "file"]
    assert all(sum(row.blocks.queries) == 40 for row in rows)


@pytest.mark.slow
def test_the_runs_of_all_folds_are_measured_on_the_one_of_several_collections_that_they_are_of(finished, lab):
    settings, runs = finished
    _, request = lab
    name = run_store.short_name(runs[0])
    asked = ComparisonRequest(targets=(f"{name}@folds:first-stage", f"{name}@folds"), dataset=f"{request.dataset}+dl20")
    comparison = comparisons.compare(settings, asked)
    assert [len(system.measured[0].values["nDCG@10"]) for system in comparison.systems] == [40, 40]
    with refused(UsageError, "not-tested"):
        comparisons.compare(settings, msgspec.structs.replace(asked, dataset="dl19+dl20"))


@pytest.mark.slow
def test_a_report_has_one_row_for_all_folds(finished):
    settings, runs = finished
    scope = report_scope.report_scope(settings.lab, [f"{run_store.short_name(runs[0])}@folds"])
    (row,) = scope.rows
    assert [member.folder for member in row.members] == runs
    data = measured_rows.measure_rows(settings, scope, (), str)
    assert not data.missing
    (test,) = scope.tests
    assert test.endswith(", 3 folds")
    assert len(data.systems[row.model.label].measured[0].values["nDCG@10"]) == 40
    assert row.model.seeds == (42,)
    of_two = report_scope.report_scope(settings.lab, [run_store.short_name(run) for run in runs[:2]])
    assert of_two.tests == (test.replace(", 3 folds", ", 2 of 3 folds"),)


@pytest.mark.slow
def test_a_command_for_one_run_says_that_it_takes_no_folds_together(finished):
    settings, runs = finished
    short = [run_store.short_name(run) for run in runs]
    name = f"{short[1]}@folds"
    with refused(UsageError, "folds-together", *short):
        named_systems.target(settings.lab, name)
    with refused(UsageError, "folds-together", *short):
        checkpoint_folder(settings.lab, f"{name}:contrastive")
    with refused(UsageError, "folds-together", *short):
        export_rankings(settings, name, settings.lab / "out", None, print)
    with refused(UsageError, "folds-together", short[1]):
        run_store.find(settings.lab, name)
    with refused(UsageError, "run-not-found", "unheard"):
        run_store.find(settings.lab, "unheard@folds")


def test_a_dry_run_tells_the_time_of_all_folds_and_what_all_their_queries_can_show(lab):
    settings, request = lab
    words = ["run", "--recipe", request.recipes[0], "--dataset", request.dataset, "--folds", "3", "--dry-run"]
    places = ["--lab", str(settings.lab), "--cache", str(settings.cache), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, *places, "--pairs-per-second", "0.5", "--json"])
    assert done.exit_code == 0, done.output
    tables = json.loads(done.stdout)
    assert {(row["queries"], row["dataset"]) for row in tables["power"]} == {(40, "data, 3 folds")}
    recipes_of = [of_fold.recipe for of_fold, _ in run_request.load_folds(request)]
    planned = [plans.plan_of(recipe, settings, now=datetime(2026, 1, 3, tzinfo=UTC)) for recipe in recipes_of]
    each = [estimates.total(estimates.timed(plans.work_of(p), estimates.told(p.recipe, 0.5))) for p in planned]
    one, all_folds = (line for line in done.stderr.splitlines() if line.startswith(("about", "all 3 folds")))
    assert estimates.format_minutes(each[0]) in one
    assert estimates.format_minutes(sum(each)) in all_folds  # they train on different queries, so that none is shared
    assert estimates.format_minutes(sum(each)) not in one


def test_a_prediction_for_nodes_is_refused_for_folds_without_a_matrix(lab):
    settings, request = lab
    words = ["run", "--recipe", request.recipes[0], "--dataset", request.dataset, "--folds", "3", "--dry-run"]
    asked = CliRunner().invoke(app, [*words, "--nodes", "2", "--lab", str(settings.lab), "--device", "cpu"])
    assert isinstance(asked.exception, UsageError)
    assert asked.exception.where == "--nodes"


def test_a_difference_that_one_fold_makes_alone_is_said_not_to_be_shown_over_folds():
    """Ten queries a fold: four folds gain nothing on average, the fifth gains much, so that all queries show a gain."""
    wave = [0.01 * (-1) ** at for at in range(10)]
    folds = [wave, wave, wave, wave, [0.3 + value for value in wave]]
    one, even = (
        FoldRow(
            right="new", left="old", first_stage="bm25", measure="nDCG@10", verdict="better",
            blocks=fold_blocks(values, 0.95),
        )
        for values in (folds, [[0.1 + 0.01 * at + value for value in wave] for at in range(5)])
    )  # fmt: skip
    assert [row.blocks.is_shown_over_folds for row in (one, even)] == [False, True]
    names = [len(cross_validation.fold_table([row], 0.95).notes) for row in (one, even)]
    assert names[0] == names[1] + 1
    assert len(cross_validation.fold_table([one], 0.95, "recipes").notes) == 2


def test_intervals_over_folds_of_few_differing_queries_are_marked_for_people():
    queries = [f"q{at}" for at in range(30)]
    folds = tuple(tuple(queries[place::3]) for place in range(3))
    systems = []
    for label, differing in (("old", 0), ("few", 2), ("many", 25)):
        values = {"nDCG@10": {query: 0.5 + 0.01 * at * (at < differing) for at, query in enumerate(queries)}}
        measured = Measured(condition=Condition("pydocs/test", "bm25"), qrels_sha256="0", values=values)
        systems.append(System(label=label, measured=(measured,), folds=folds))
    rows = cross_validation.fold_rows(compare(systems, ["nDCG@10"]))
    marked, plain = (cross_validation.fold_table(rows, 0.95, is_marked=is_marked) for is_marked in (True, False))
    assert [sum(FEW_MARK in str(cell) for cell in row) for row in marked.rows] == [2, 0]
    assert any(FEW_MARK in note for note in marked.notes)
    assert FEW_MARK not in str((plain.rows, plain.notes))
