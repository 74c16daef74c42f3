"""Sweeps from their file to a tuned recipe: trials in the queue, resumed and never done twice, and what they found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from cerank import recipes
from cerank.app import fold_runs, plans
from cerank.app.comparison import comparisons
from cerank.app.lab import Lab
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.app.run_views import run_list
from cerank.app.run_views.run_monitor import LabMonitor
from cerank.app.run_views.seed_groups import grid_of
from cerank.app.sweeps import adaptive_search, sweep_arms, sweep_driver, trial_results, tuned_recipes
from cerank.app.sweeps.sweep_arms import SweepPlan
from cerank.app.sweeps.trial_results import ArmResult, TrialResult
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, MissingError, RecipeError, UsageError
from cerank.evaluation.comparison_rows import footnotes
from cerank.files import json_records
from cerank.files.lease import Lease
from cerank.machine.devices import Device
from cerank.planning.stage_keys import stage_keys
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.tuning_specs import Tuning
from cerank.recipes.sweep_schema import TrialRecord, load_sweep
from cerank.runs import run_store
from cerank.runs.layout import QueueFolder
from cerank.runs.records import ReusedStage
from cerank.worker.__main__ import run_attempt
from cerank.worker.run_context import StopFlag
from tests.refusals import refused
from tests.worker.small import small_plan

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RATES = '"stages.*.learning_rate" = [1e-4, 1e-3]'


def unheard(_text: str) -> None:
    """What is said of the looking is nobody's here."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Two recipes to sweep over, and a lab whose queue nobody serves."""
    plan, settings = small_plan(tmp_path)
    changed = {
        name: msgspec.structs.replace(stage, steps=4, validate_every=2) for name, stage in plan.recipe.stages.items()
    }
    (tmp_path / "both.toml").write_text(recipes.render(msgspec.structs.replace(plan.recipe, stages=changed)))
    for name, chain in {"cl": '["contrastive"]', "kd": '["distill"]', "cl-kd": '["contrastive", "distill"]'}.items():
        (tmp_path / f"{name}.toml").write_text(f'extends = "./both.toml"\nname = "{name}"\nchain = {chain}\n')
    (tmp_path / "own.toml").write_text(
        f'extends = "./cl.toml"\nname = "own"\n[stages.contrastive]\ndataset = "{plan.recipe.data.train}"\n'
    )
    judge = 'kind = "graded"\nmodel = "m"\nserver = "http://127.0.0.1:9/v1"\ndepth = 4\n'
    (tmp_path / "spare.toml").write_text(f'extends = "./cl.toml"\nname = "spare"\n[teachers.spare]\n{judge}')
    QueueFolder(settings.lab).path.mkdir(parents=True)
    lab = Lab(settings, devices=(Device("cpu"),))
    with Lease.take(QueueFolder(settings.lab).lease):
        yield SimpleNamespace(settings=settings, lab=lab, folder=tmp_path, plan=plan)


def sweep_of(
    made: SimpleNamespace, search: str = RATES, arms: str = '"./cl.toml", "./kd.toml"', head: str = 'method = "grid"'
) -> SweepPlan:
    file = made.folder / "sweep.toml"
    file.write_text(f'name = "rates"\nrecipes = [{arms}]\n{head}\n[search]\n{search}\n')
    return sweep_arms.load_arms(load_sweep(str(file)))


def work_off(lab: Lab, most: int = 99) -> int:
    """Carry out what is queued, in order, in this process; return how many runs that was."""
    queued = lab.queued()[:most]
    for folder in queued:
        with Lease.take(folder.lease, NOW):
            assert run_attempt(folder, StopFlag(folder.stop)) == 0, folder.failure.read_text()
    return len(queued)


def test_trials_are_runs_in_the_queue_that_read_no_test_set_and_are_made_once(made: SimpleNamespace) -> None:
    plan = sweep_of(made)
    status = sweep_driver.begin(made.lab, plan, NOW, unheard)
    assert [
        (result.trial.arm, result.trial.number, result.state) for each in status.arms for result in each.results
    ] == [
        ("cl", 1, "queued"),
        ("cl", 2, "queued"),
        ("kd", 1, "queued"),
        ("kd", 2, "queued"),
    ]
    assert [run_store.load_plan(folder).recipe.name for folder in made.lab.queued()] == [
        "cl rates#001",
        "kd rates#001",
        "cl rates#002",
        "kd rates#002",
    ]
    tests = set(made.plan.recipe.data.test)
    for folder in run_store.folders(made.lab.folder):
        made_plan = run_store.load_plan(folder)
        assert made_plan.recipe.data.test == ()
        assert not any(test in entry.name for entry in made_plan.inputs for test in tests)
    assert work_off(made.lab, 1) == 1
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    assert len(run_store.folders(made.lab.folder)) == 4
    assert work_off(made.lab) == 3
    assert sweep_driver.begin(made.lab, plan, NOW, unheard).is_over
    assert made.lab.queued() == []


def test_a_trial_has_the_value_of_the_weights_that_its_last_stage_hands_on(made: SimpleNamespace) -> None:
    plan = sweep_of(made, arms='"./cl-kd.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    work_off(made.lab)
    (arm,) = sweep_driver.status(made.lab, plan).arms
    for result, folder in zip(arm.results, run_store.folders(made.lab.folder), strict=True):
        own = run_store.load_plan(folder)
        seen = trial_results.validations_of(folder, own, "nDCG@10")
        assert len(seen) == 2
        assert result.value == max(seen)  # keep = "best" is the default
        assert result.start is not None
        assert result.pairs == 2 * 4 * 2 * 4  # stages x steps x groups x candidates
    assert arm.best.value == max(result.value for result in arm.results)


def test_the_winner_is_its_trial_with_tests_and_its_run_trains_nothing_again(made: SimpleNamespace) -> None:
    plan = sweep_of(made)
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    with refused(UsageError, "sweep-not-over", 4):
        tuned_recipes.write(plan, sweep_driver.status(made.lab, plan), made.folder / "found")
    work_off(made.lab)
    status = sweep_driver.status(made.lab, plan)
    file, _ = tuned_recipes.write(plan, status, made.folder / "found")
    with refused(UsageError, "file-exists", file):
        tuned_recipes.write(plan, status, made.folder / "found")
    tuned = recipes.load(str(file)).recipe
    best = status.arms[0].best
    assert tuned.tuned == Tuning(
        sweep="rates",
        sha256=plan.sha256,
        method="grid",
        trials=2,
        pairs=2 * 4 * 2 * 4,
        measure="nDCG@10",
        validation=tuned.data.validation,
        value=best.value,
        trial=best.trial.number,
        settings=best.trial.settings,
    )
    assert tuned.stages["contrastive"].learning_rate == best.trial.settings["stages.*.learning_rate"]
    assert tuned.data.test == made.plan.recipe.data.test
    planned = msgspec.structs.replace(plans.plan_of(tuned, made.settings, now=NOW), shares=True)
    folder = made.lab.enqueue(planned, file.read_bytes())
    work_off(made.lab)
    assert json_records.load(folder.reused_stage(0, "contrastive"), ReusedStage).run == best.trial.run
    notes = [note for row in comparisons.of_run(folder).rows for note in row.notes if note.kind == "tuned"]
    assert notes
    assert all("'contrastive'" in note.text and "n = 2" in note.text and "rates" in note.text for note in notes)
    assert notes[0].text in footnotes(comparisons.of_run(folder), is_short=True)


def test_a_best_trial_below_the_start_of_its_stage_has_learned_nothing(made: SimpleNamespace) -> None:
    (arm,) = sweep_of(made, arms='"./cl.toml"').arms
    trial = TrialRecord(arm="cl", number=1, settings={}, run="")
    for start, is_told in ((0.5, True), (0.4, True), (0.3, False), (None, False)):
        result = TrialResult(trial=trial, state="finished", value=0.4, start=start)
        told = trial_results.warnings([ArmResult(arm=arm, results=(result,))])
        assert any("nothing was learned" in text for text in told) == is_told


def test_one_tuned_recipe_is_tested_against_the_untuned_one_and_several_against_each_other(
    made: SimpleNamespace,
) -> None:
    alone = tuned_recipes.run_command(sweep_of(made, arms='"./cl.toml"'), [Path("cl-tuned.toml")])
    assert alone.split()[2:6] == ["--recipe", str(made.folder / "cl.toml"), "--recipe", "cl-tuned.toml"]
    both = tuned_recipes.run_command(sweep_of(made), [Path("cl-tuned.toml"), Path("kd-tuned.toml")])
    assert str(made.folder) not in both


def test_trials_stand_in_the_list_and_the_grid_of_the_dashboard(made: SimpleNamespace) -> None:
    plan = sweep_of(made, arms='"./cl.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    work_off(made.lab, 1)
    first, second = LabMonitor(made.lab.folder).poll()
    assert (first.recipe, second.recipe) == ("cl rates#001", "cl rates#002")
    assert (first.state, second.state) == ("finished", "queued")
    ((measure, value),) = [first.validated]
    assert measure == "nDCG@10"
    assert value == sweep_driver.status(made.lab, plan).arms[0].results[0].value
    assert first.final is None
    assert first.label.startswith("rates cl 1/2")
    assert dict(run_list.details(first))["recipe"].startswith("cl rates#001")
    assert grid_of([first, second]).recipes == ("cl rates#001", "cl rates#002")


def test_the_record_of_tuning_changes_only_the_identity_of_recipes_that_have_it(made: SimpleNamespace) -> None:
    plain = made.plan
    tuned = Tuning(sweep="rates", method="grid", trials=2)
    with_it = msgspec.structs.replace(plain, recipe=msgspec.structs.replace(plain.recipe, tuned=tuned))
    assert with_it.fingerprint != plain.fingerprint
    again = msgspec.structs.replace(plain, recipe=msgspec.structs.replace(plain.recipe, tuned=Tuning()))
    assert again.fingerprint == plain.fingerprint
    assert stage_keys(with_it) == stage_keys(plain)


def test_a_trial_cannot_be_compared_with_a_hint_at_its_sweep(made: SimpleNamespace) -> None:
    sweep_driver.begin(made.lab, sweep_of(made, arms='"./cl.toml"'), NOW, unheard)
    work_off(made.lab)
    with refused(MissingError, "run-untested", "sweep"):
        comparisons.of_run(run_store.folders(made.lab.folder)[0])


def test_a_sweep_of_another_declaration_needs_another_name_and_more_trials_do_not(made: SimpleNamespace) -> None:
    rate = '"stages.*.learning_rate" = { log_uniform = [1e-5, 1e-3] }'
    sweep_driver.begin(made.lab, sweep_of(made, rate, head="trials = 1"), NOW, unheard)
    more = sweep_driver.begin(made.lab, sweep_of(made, rate, head="trials = 2"), NOW, unheard)
    assert [len(each.results) for each in more.arms] == [2, 2]
    assert len(run_store.folders(made.lab.folder)) == 4
    with refused(UsageError, "sweep-exists", "rates"):
        sweep_driver.begin(made.lab, sweep_of(made, rate, head="trials = 2\nseed = 2"), NOW, unheard)


def test_a_deleted_trial_counts_and_is_not_made_again_in_silence(made: SimpleNamespace) -> None:
    plan = sweep_of(made, arms='"./cl.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    made.lab.remove(made.lab.queued()[0])
    with refused(MissingError, "sweep-run-deleted", "cl"):
        sweep_driver.begin(made.lab, plan, NOW, unheard)


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"search": '"stages.distil.learning_rate" = [1e-4, 1e-3]'}, RecipeError, "unknown-stage distil"),
        ({"search": '"stages.*.learning_rat" = [1e-4, 1e-3]'}, RecipeError, "recipe stages.contrastive.learning_rat"),
        ({"search": '"stages.*.learning_rate" = [1e-4, -1]'}, RecipeError, "recipe stages.contrastive.learning_rate"),
        (
            {"search": '"stages.*.group_size" = { integer = [1, 4] }'},
            RecipeError,
            "recipe stages.contrastive.group_size",
        ),
        ({"search": '"stages.contrastive.learning_rate" = [1e-4, 1e-3]'}, UsageError, "sweep-without-key kd"),
        ({"search": f'{RATES}\n"stages.distill.clip" = [1.0, 2.0]'}, UsageError, "sweep-unequal 4"),
        ({"head": "trials = 5"}, UsageError, "sweep-too-small 5"),
        # numbers have four digits, and this range holds no two of them
        (
            {"search": '"stages.*.learning_rate" = { uniform = [1.0001e-4, 1.0004e-4] }', "head": "trials = 5"},
            UsageError,
            "sweep-too-small 5",
        ),
        ({"head": 'method = "grid"\ntrials = 5'}, UsageError, "sweep-trials 5"),
        ({"search": '"stages.*.steps" = { integer = [1, 600] }'}, UsageError, "sweep-too-large 500"),
        ({"arms": '"./cl.toml", "./nothing.toml"'}, UsageError, "recipe-unreadable nothing.toml"),
        ({"head": 'method = "grid"\nmeasure = "nDCG@ten"'}, CerankError, "usage nDCG@ten"),
        # settings that change nothing: no stage uses the teacher, and the stage has passages of its own
        (
            {"search": f'{RATES}\n"teachers.spare.depth" = [5, 6]', "arms": '"./spare.toml"'},
            UsageError,
            "sweep-without-effect search.teachers.spare.depth",
        ),
        (
            {"search": f'{RATES}\n"data.train" = ["./data", "./apart"]', "arms": '"./own.toml"'},
            UsageError,
            "sweep-without-effect search.data.train",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_made(
    made: SimpleNamespace, change: dict[str, str], kind: type[CerankError], named: str
) -> None:
    with refused(kind, *named.split()):
        sweep_of(made, **change)


def test_arms_whose_tuned_recipes_would_be_one_file_are_refused(made: SimpleNamespace) -> None:
    text = (made.folder / "kd.toml").read_text()
    (made.folder / "cl.toml").write_text(text.replace('name = "kd"', 'name = "k d"'))
    (made.folder / "kd.toml").write_text(text.replace('name = "kd"', 'name = "k-d"'))
    with refused(UsageError, "name-twice", "k-d"):
        sweep_of(made)


def test_validation_on_a_test_set_or_on_its_queries_is_refused(made: SimpleNamespace) -> None:
    test = made.plan.recipe.data.test[0]
    text = (made.folder / "both.toml").read_text()
    (made.folder / "both.toml").write_text(text.replace(made.plan.recipe.data.validation, test))
    with refused(UsageError, "sweep-on-test", "cl"):
        sweep_of(made)
    whole = test.partition("[")[0]
    assert 'force = ["shared_queries"]' in text
    text = text.replace('force = ["shared_queries"]', "")
    (made.folder / "both.toml").write_text(text.replace(made.plan.recipe.data.validation, f"{whole}[10%:]"))
    with refused(RecipeError, "shared-queries"):
        sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []


def test_validation_on_queries_of_one_of_several_test_collections_is_refused(made: SimpleNamespace) -> None:
    recipe = made.plan.recipe
    whole = recipe.data.validation.partition("[")[0]
    data = msgspec.structs.replace(recipe.data, test=(f"{whole}[:30%]+vaswani",), first_stages=("bm25",))
    several = msgspec.structs.replace(recipe, data=data, force=())
    (made.folder / "both.toml").write_text(recipes.render(several))
    with refused(RecipeError, "shared-queries"):
        sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []


def test_a_choice_of_training_data_that_holds_test_queries_is_refused(made: SimpleNamespace) -> None:
    recipe = with_different_queries(made.plan.recipe)
    (made.folder / "both.toml").write_text(recipes.render(recipe))
    train = recipe.data.train
    with refused(RecipeError, "shared-queries"):
        search = f'"data.train" = ["{train}", "{train.partition("[")[0]}[:90%]"]'
        sweep_driver.begin(made.lab, sweep_of(made, search), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []
    sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder)


def with_different_queries(recipe: Recipe) -> Recipe:
    """The recipe without leave to share queries, once no two of its queries have many words in common."""
    for folder in {Path(name.partition("[")[0]) for name in (recipe.data.train, recipe.data.validation)}:
        lines = (folder / "queries.tsv").read_text().splitlines()
        texts = [f"{line} {folder.name}{number}\n" for number, line in enumerate(lines)]
        (folder / "queries.tsv").write_text("".join(texts))
    return msgspec.structs.replace(recipe, force=())


def test_a_choice_of_training_data_that_holds_validation_queries_is_refused(made: SimpleNamespace) -> None:
    recipe = with_different_queries(made.plan.recipe)
    (made.folder / "both.toml").write_text(recipes.render(recipe))
    train, validation = recipe.data.train, recipe.data.validation
    by_id = f"{validation.partition('[')[0]}[60%:]"
    with refused(RecipeError, "validation-queries-trained", 4, 8, by_id):
        sweep_driver.begin(made.lab, sweep_of(made, f'"data.train" = ["{train}", "{by_id}"]'), NOW, unheard)
    with refused(RecipeError, "validation-queries-trained", by_id):
        search = f'"stages.contrastive.dataset" = ["{train}", "{by_id}"]'
        sweep_driver.begin(made.lab, sweep_of(made, search, arms='"./cl.toml"'), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []
    (made.folder / "both.toml").write_text(recipes.render(msgspec.structs.replace(recipe, force=("shared_queries",))))
    sweep_driver.begin(made.lab, sweep_of(made, f'"data.train" = ["{train}", "{by_id}"]'), NOW, unheard)
    assert len(run_store.folders(made.lab.folder)) == 4


def test_a_training_set_that_holds_a_validation_query_in_other_words_is_refused(made: SimpleNamespace) -> None:
    recipe = with_different_queries(made.plan.recipe)
    (made.folder / "both.toml").write_text(recipes.render(recipe))
    texts = {recipe.data.train: "Of Alpha, beta gamma delta?", recipe.data.validation: "alpha beta gamma delta"}
    for name, text in texts.items():
        first = next(iter(open_dataset(name, made.settings.cache).queries))
        file = Path(name.partition("[")[0]) / "queries.tsv"
        lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{first}\t")]
        file.write_text("\n".join([f"{first}\t{text}", *lines]) + "\n")
    with refused(RecipeError, "validation-queries-trained", 1, "alpha beta gamma delta"):
        sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []


def test_a_sweep_whose_validation_is_missing_starts_nothing(made: SimpleNamespace) -> None:
    text = (made.folder / "both.toml").read_text()
    (made.folder / "both.toml").write_text(text.replace(made.plan.recipe.data.validation, "./nowhere"))
    with refused(CerankError, "missing", "nowhere"):
        sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []


def test_a_sweep_whose_validation_queries_have_no_relevant_document_starts_nothing(made: SimpleNamespace) -> None:
    apart = Path(made.plan.recipe.data.validation.partition("[")[0])
    (apart / "qrels").write_text("".join(f"q{number} 0 d{number} 0\n" for number in range(40)))
    with refused(CerankError, "sweep-unplanned", "nDCG@10"):
        sweep_driver.begin(made.lab, sweep_of(made), NOW, unheard)
    assert run_store.folders(made.lab.folder) == []


def carried_on(made: SimpleNamespace, plan: SweepPlan) -> sweep_driver.SweepStatus:
    """Carry a sweep on until it is over."""
    status = sweep_driver.begin(made.lab, plan, NOW, unheard)
    while not status.is_over:
        assert work_off(made.lab), "nothing is queued, and the sweep is not over"
        status = sweep_driver.advance(made.lab, plan, NOW, unheard)
    return status


def test_tpe_decides_about_a_round_after_the_one_before_and_would_again(made: SimpleNamespace) -> None:
    pytest.importorskip("optuna")
    rate = '"stages.*.learning_rate" = { log_uniform = [1e-5, 1e-2] }'
    head = 'method = "tpe"\ntrials = 4\nstartup = 1\nparallel = 2'
    plan = sweep_of(made, rate, arms='"./cl.toml"', head=head)
    status = sweep_driver.begin(made.lab, plan, NOW, unheard)
    assert [len(each.results) for each in status.arms] == [2]
    assert sweep_driver.advance(made.lab, plan, NOW, unheard) == status
    (each,) = carried_on(made, plan).arms
    assert [result.trial.number for result in each.results] == [1, 2, 3, 4]
    tried = [result.trial.settings["stages.*.learning_rate"] for result in each.results]
    assert len(set(tried)) == 4
    assert tried[0] == plan.first_settings(plan.arms[0])[0]["stages.*.learning_rate"]
    earlier = [(result.trial.settings, result.value) for result in each.results[:2]]
    assert each.results[3].trial.settings == adaptive_search.suggest(plan.arms[0].search, earlier, 1, 4)


def test_asha_counts_a_trial_as_stopped_where_it_should_have_been(made: SimpleNamespace) -> None:
    pytest.importorskip("optuna")
    rate = '"stages.*.learning_rate" = { log_uniform = [1e-6, 1e-1] }'
    plan = sweep_of(made, rate, arms='"./cl.toml"', head='method = "asha"\ntrials = 4\nreduction = 2')
    status = carried_on(made, plan)  # nobody stops a worker here: each trial goes to its end
    (each,) = status.arms
    firsts = [
        trial_results.validations_of(folder, run_store.load_plan(folder), "nDCG@10")[0]
        for folder in run_store.folders(made.lab.folder)
    ]
    for place, result in enumerate(each.results):
        best = sorted(firsts[: place + 1], reverse=True)[: max(1, (place + 1) // 2)]
        assert (result.trial.stopped == 1) == (firsts[place] < best[-1]), (firsts, place)
        assert (result.state == "stopped early") == bool(result.trial.stopped)
    assert any(result.trial.stopped for result in each.results)
    assert each.best.state == "finished"
    assert sweep_driver.begin(made.lab, plan, NOW, unheard) == status  # what was stopped stays so
    assert made.lab.queued() == []


@pytest.mark.parametrize("steps", ["[2, 4]", "[4, 8]"])
def test_asha_looks_at_the_steps_that_are_searched_and_not_at_those_of_the_recipe(
    made: SimpleNamespace, steps: str
) -> None:
    search = f'{RATES}\n"stages.*.steps" = {steps}'
    head = 'method = "asha"\ntrials = 3\nsettings."stages.*.validate_every" = 4'
    if steps == "[4, 8]":  # the trials of 8 steps validate after 4
        assert sweep_of(made, search, head=head).arms
        return
    with refused(UsageError, "sweep-without-validations"):
        sweep_of(made, search, head=head)
    text = (made.folder / "both.toml").read_text()
    (made.folder / "both.toml").write_text(text.replace("steps = 4", "steps = 40"))
    with refused(UsageError, "sweep-without-validations"):  # whatever the recipe itself would do
        sweep_of(made, search, head=head)


def test_asha_needs_validations_during_training(made: SimpleNamespace) -> None:
    text = (made.folder / "both.toml").read_text()
    (made.folder / "both.toml").write_text(text.replace("validate_every = 2", "validate_every = 0"))
    with refused(UsageError, "sweep-without-validations", "stages.contrastive.validate_every"):
        sweep_of(made, arms='"./cl.toml"', head='method = "asha"\ntrials = 2')


def with_folds(made: SimpleNamespace) -> Path:
    """A recipe of one stage that is cross-validated in three folds; return its file."""
    whole = made.plan.recipe.data.train.partition("[")[0]
    data = msgspec.structs.replace(made.plan.recipe.data, train=whole, validation=whole, test=(whole,), folds="3")
    stage = msgspec.structs.replace(made.plan.recipe.stages["contrastive"], steps=4, validate_every=2)
    recipe = msgspec.structs.replace(
        made.plan.recipe, name="cv", chain=("contrastive",), data=data, stages={"contrastive": stage}
    )
    file = made.folder / "cv.toml"
    file.write_text(recipes.render(recipe))
    return file


def test_a_sweep_over_folds_searches_each_on_its_own_validation_and_never_its_test(made: SimpleNamespace) -> None:
    with_folds(made)
    plan = sweep_of(made, arms='"./cv.toml"')
    assert [(arm.name, arm.fold, arm.trials) for arm in plan.arms] == [
        (f"cv fold {number}", number, 2) for number in (1, 2, 3)
    ]
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    whole = made.plan.recipe.data.train.partition("[")[0]
    seen: dict[str, set[str]] = {}
    for arm in plan.arms:
        tested = set(open_dataset(f"{whole}[fold={arm.fold}/3]", made.settings.cache).queries)
        seen[arm.name] = tested
        trials = [
            folder for folder in made.lab.queued() if run_store.load_plan(folder).recipe.name.startswith(arm.name)
        ]
        assert len(trials) == 2
        for folder in trials:
            own = run_store.load_plan(folder)
            assert own.recipe.data.test == ()
            for name in (entry.name for entry in own.inputs if entry.role == "dataset"):
                assert not tested & set(open_dataset(name, made.settings.cache).queries)
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 40


def test_what_a_sweep_over_folds_found_is_one_recipe_whose_folds_are_compared_together(made: SimpleNamespace) -> None:
    with_folds(made)
    plan = sweep_of(made, arms='"./cv.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    work_off(made.lab)
    status = sweep_driver.status(made.lab, plan)
    best = [each.best.trial for each in status.arms]
    (file,) = tuned_recipes.write(plan, status, made.folder / "found")
    tuned = recipes.load(str(file)).recipe
    assert (tuned.name, tuned.data.folds, tuned.tuned.trials) == ("cv-tuned", "3", 2)
    assert [fold.trial for fold in tuned.tuned.folds] == [trial.number for trial in best]
    # so that folds differ, whichever trials were best
    other = {1e-4: 1e-3, 1e-3: 1e-4}[best[0].settings["stages.*.learning_rate"]]
    rates = [best[0].settings["stages.*.learning_rate"], other, other]
    changed = [
        msgspec.structs.replace(fold, settings={"stages.*.learning_rate": rate})
        for fold, rate in zip(tuned.tuned.folds, rates, strict=True)
    ]
    tuned = msgspec.structs.replace(tuned, tuned=msgspec.structs.replace(tuned.tuned, folds=tuple(changed)))
    rounds = fold_recipes(tuned)
    assert [each.recipe.stages["contrastive"].learning_rate for each in rounds] == rates
    assert [each.recipe.tuned.validation for each in rounds] == [arm.validation for arm in plan.arms]
    assert len({fold_runs.family(each.recipe) for each in rounds}) == 1
    folders = []
    for each in rounds:
        own = msgspec.structs.replace(plans.plan_of(each.recipe, made.settings, now=NOW), shares=True)
        folders.append(made.lab.enqueue(own, each.toml))
    work_off(made.lab)
    assert json_records.load(folders[0].reused_stage(0, "contrastive"), ReusedStage).run == best[0].run
    assert [folder for folder, _ in fold_runs.in_order(made.lab.folder, folders[1])] == folders
    name = run_store.short_name(folders[0])
    comparison = comparisons.compare(
        made.settings, comparisons.ComparisonRequest(targets=(f"{name}@folds:first-stage", f"{name}@folds"))
    )
    assert {row.paired.n for row in comparison.rows} == {40}
    notes = [note for row in comparison.rows for note in row.notes if note.kind == "tuned"]
    assert "n = 2" in notes[0].text
    assert "fold" in notes[0].text.split()
    assert not any(note.kind == "tuned on test" for row in comparison.rows for note in row.notes)


def test_a_key_that_each_fold_has_its_own_value_of_cannot_be_set_in_silence(made: SimpleNamespace) -> None:
    with_folds(made)
    plan = sweep_of(made, arms='"./cv.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    work_off(made.lab)
    (file,) = tuned_recipes.write(plan, sweep_driver.status(made.lab, plan), made.folder / "found")
    assert len(fold_recipes(recipes.load(str(file), ["stages.contrastive.clip=0.5"]).recipe)) == 3
    with refused(UsageError, "folds-tuned-key", "stages.contrastive.learning_rate"):
        fold_recipes(recipes.load(str(file), ["stages.contrastive.learning_rate=2e-5"]).recipe)


def test_training_data_that_is_searched_is_divided_as_the_tested_data_is(made: SimpleNamespace) -> None:
    with_folds(made)
    whole = made.plan.recipe.data.train.partition("[")[0]
    other = made.plan.recipe.data.validation.partition("[")[0]
    plan = sweep_of(made, f'"data.train" = ["{whole}", "{whole} + {other}"]', arms='"./cv.toml"')
    for arm in plan.arms:
        for settings in plan.first_settings(arm):
            train = arm.with_settings(settings, "").data.train
            assert f"{whole}[fold!={arm.fold},{arm.fold % 3 + 1}/3]" in train
            assert (other in train) == (other in settings["data.train"])


def test_folds_that_a_sweep_did_not_choose_for_are_refused(made: SimpleNamespace) -> None:
    with_folds(made)
    plan = sweep_of(made, arms='"./cv.toml"')
    sweep_driver.begin(made.lab, plan, NOW, unheard)
    work_off(made.lab)
    (file,) = tuned_recipes.write(plan, sweep_driver.status(made.lab, plan), made.folder / "found")
    tuned = msgspec.structs.replace(recipes.load(str(file)).recipe, force=())
    data = msgspec.structs.replace(tuned.data, folds="4")
    with refused(UsageError, "folds-tuned", 3, 4):
        fold_recipes(msgspec.structs.replace(tuned, data=data))
    dealt_otherwise = msgspec.structs.replace(tuned, data=msgspec.structs.replace(tuned.data, folds="3 by seed 7"))
    with refused(RecipeError, "shared-queries"):
        for each in fold_recipes(dealt_otherwise):
            plans.plan_of(each.recipe, made.settings, now=NOW)
    text = file.read_text()
    file.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("folds =")))
    with refused(RecipeError, "recipe", "tuned.folds", "data.folds"):
        recipes.load(str(file))
