"""A sweep's file: what it may say, and what is refused before anything is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.errors import CerankError, RecipeError
from cerank.recipes.sweep_schema import load_sweep
from tests.refusals import refused

RATE = '"stages.*.learning_rate" = { log_uniform = [1e-6, 1e-4] }'


def written(folder: Path, head: str = "trials = 3", search: str = RATE) -> str:
    file = folder / "rates.toml"
    file.write_text(f'name = "rates"\nrecipes = ["contrastive"]\n{head}\n[search]\n{search}\n')
    return str(file)


def test_a_list_stands_for_choices_and_paths_are_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('extends = "contrastive"\n')
    (tmp_path / "a.run").write_text("")
    file = written(tmp_path, search='"stages.contrastive.loss" = ["lce", "hinge"]\n"base" = ["./m", "./n"]')
    text = Path(file).read_text().replace('["contrastive"]', '["./own.toml"]')
    Path(file).write_text(text)
    sweep = load_sweep(file).sweep
    assert sweep.search["stages.contrastive.loss"].choices == ("lce", "hinge")
    assert sweep.recipes == (str(tmp_path / "own.toml"),)
    assert sweep.search["base"].choices == (str(tmp_path / "m"), str(tmp_path / "n"))


def test_options_replace_keys_of_the_file(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path), {"trials": 17, "method": "tpe", "seed": 5}).sweep
    assert (sweep.trials, sweep.method, sweep.seed) == (17, "tpe", 5)


@pytest.mark.parametrize(
    ("head", "search", "named"),
    [
        ("trials = 0", RATE, "trials"),
        ("trials = -1", RATE, "trials"),
        ("trails = 3", RATE, "trails"),
        ('method = "bayes"', RATE, "method"),
        ("trials = 3", "", "search"),
        ("trials = 3", '"stages.a.steps" = { integer = [9, 3] }', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = { integer = [1, 3], uniform = [1, 3] }', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = []', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = {}', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = 7', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = [3, 3]', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.clip" = { log_uniform = [0, 3] }', "search.stages.a.clip"),
        ("trials = 3", '"stages.a.clip" = { uniform = [0, inf] }', "search.stages.a.clip"),
        ('method = "grid"', '"stages.a.clip" = { uniform = [0, 3] }', "search.stages.a.clip"),
        ('method = "grid"', '"stages.a.steps" = { integer = [1, 5000] }', "search.stages.a.steps"),
        ("trials = 3", '"seed" = [1, 2]', "search.seed"),
        ("trials = 3", '"data.test" = [["a"], ["b"]]', "search.data.test"),
        ("trials = 3", '"evaluate.depths" = [[1], [2]]', "search.evaluate.depths"),
        ("trials = 3", '"data.validation" = ["a", "b"]', "search.data.validation"),
        ("trials = 3", f'{RATE}\n"stages.a.learning_rate" = [1e-5, 1e-6]', "stages.a.learning_rate"),
        ('trials = 3\nmeasure = "loss"', RATE, "measure"),
        ("trials = 3", f'{RATE}\n[settings]\n"stages" = 3', "settings.stages"),
        ("trials = 3", f'{RATE}\n[settings]\n"stages..steps" = 3', "settings.stages..steps"),
        ("trials = 3", f'{RATE}\n[settings]\n"tuned.trials" = 3', "settings.tuned.trials"),
        ("trials = 3\nparallel = 2", RATE, "parallel"),
        ("trials = 3\nreduction = 4", RATE, "reduction"),
        ("trials = 3\nstartup = 4", RATE, "startup"),
        ('trials = 3\nprimary = ["distill"]', RATE, "primary"),
        # keys that would do nothing, even with the value that they have by default
        ('method = "grid"\ntrials = 0', '"stages.a.steps" = [1, 2]', "trials"),
        ('method = "grid"\nseed = 1', '"stages.a.steps" = [1, 2]', "seed"),
        ("trials = 3\nparallel = 1", RATE, "parallel"),
        ("trials = 3\nreduction = 3", RATE, "reduction"),
        ("trials = 30\nstartup = 10", RATE, "startup"),
        ('method = "asha"\ntrials = 3\nstartup = 1', RATE, "startup"),
        ('method = "tpe"\ntrials = 30\nreduction = 3', RATE, "reduction"),
        ('trials = 3\nprimary = ["contrastive"]', RATE, "primary"),
        ("trials = 3", '"stages.a.clip" = { uniform = [1, 3], points = 3 }', "search.stages.a.clip"),
        ("trials = 3", '"stages.a.clip" = { uniform = [1, 3], points = 0 }', "search.stages.a.clip"),
        ('method = "grid"', '"stages.a.clip" = { uniform = [1, 3], points = 1 }', "search.stages.a.clip"),
        ('method = "grid"', '"stages.a.steps" = { integer = [1, 3], points = 5 }', "5 3"),
        ("trials = 3", '"stages.a.steps" = { choices = [1, 3], points = 2 }', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = [3]', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.steps" = { integer = [3, 3] }', "search.stages.a.steps"),
        ("trials = 3", '"stages.a.checkpoint_every" = [3, 4]', "search.stages.a.checkpoint_every"),
        ("trials = 3", '"stages.a.least_spread" = [0.0, 1e-3]', "search.stages.a.least_spread"),
        ("trials = 3", '"stages.a.microbatch" = [64, 128]', "search.stages.a.microbatch"),
        ("trials = 3", '"compute.shard_parameters" = [true, false]', "search.compute.shard_parameters"),
        # searches that would come to drawing at random
        ('method = "tpe"\ntrials = 10', RATE, "startup 10"),
        ('method = "tpe"\ntrials = 6\nstartup = 2\nparallel = 6', RATE, "parallel 6"),
        ('method = "asha"\ntrials = 6\nparallel = 8', RATE, "parallel 8 6"),
        (
            'trials = 3\nmeasure = "nDCG@10"',
            f'{RATE}\n[settings]\n"stages.a.validation_measure" = "RR@10"',
            "settings.stages.a.validation_measure",
        ),
    ],
)
def test_what_is_no_sweep_is_refused_by_the_name_of_the_key(tmp_path: Path, head: str, search: str, named: str) -> None:
    with refused(RecipeError, "recipe", *named.split()):
        load_sweep(written(tmp_path, head, search))


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with refused(CerankError, "sweep-unreadable", "nothing.toml"):
        load_sweep(str(tmp_path / "nothing.toml"))
