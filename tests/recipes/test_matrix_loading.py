"""Matrices: the shipped ones, a person's own, and what the command line changes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank import recipes
from cerank.datasets.aliases import ALIASES, FIRST_STAGES
from cerank.errors import RecipeError, UsageError
from cerank.evaluation import published
from cerank.evaluation.published import PublishedQuery
from cerank.recipes.schema import Stage
from tests.refusals import refused


def test_the_shipped_matrices_name_shipped_recipes_and_known_datasets() -> None:
    shipped = ["all-or-filtered", "ecir2025", "ecir2025-as-published", "ecir2025-ood", "ecir2025-small"]
    shipped += ["full-or-lora", "is-the-second-stage-worth-it"]
    shipped += ["labels-or-llm", "one-two-joint", "optimizer-options"]
    shipped += ["rank-distillm", "rank-distillm-budget", "rank-distillm-table1"]
    assert recipes.shipped_matrices() == shipped
    for name in recipes.shipped_matrices():
        matrix = recipes.load_matrix(name).matrix
        assert matrix.name == name
        assert matrix.description
        assert set(matrix.recipes) <= set(recipes.shipped())
        assert matrix.baseline in matrix.recipes
        assert set(matrix.test) <= {*ALIASES, "pydocs/test"}
        assert set(matrix.first_stages) <= set(FIRST_STAGES)


def test_the_models_of_rank_distillms_table_are_the_paper_s_rows_that_are_trained() -> None:
    matrix = recipes.load_matrix("rank-distillm-table1").matrix
    paper = published.paper_of(matrix.paper)
    assert paper is not None
    found = []
    for name in matrix.recipes:
        recipe = recipes.load(name).recipe
        kinds = tuple("kd" if stage.source == "teacher" else "cl" for _, stage in recipe.chained())
        (figure,) = published.beside(
            PublishedQuery(
                test="dl19",
                first_stage="bm25",
                measure="nDCG@10",
                base=recipe.base,
                chain=kinds,
                loss=recipe.chained()[-1][1].loss,
                teacher=recipe.chained()[-1][1].teacher,
                recipe=recipe.name,
            )
        )
        found.append(figure.label)
    trained = [row.label for row in paper.tables[0].rows if row.run and row.role == "model"]
    assert sorted(found) == sorted(trained)
    assert len(trained) == 10


def test_each_level_of_rank_distillms_budget_is_a_number_of_lists_or_their_depth() -> None:
    factors = recipes.load_matrix("rank-distillm-budget").matrix.factors
    assert [len(levels) for levels in factors.values()] == [4, 4]
    assert factors["depth"]["10"] == {"stages.finetune.list_depth": 10}


def test_lions_level_of_the_optimizer_options_has_adamws_product_of_rate_and_decay() -> None:
    matrix = recipes.load_matrix("optimizer-options").matrix
    assert {name: len(levels) for name, levels in matrix.factors.items()} == dict.fromkeys(
        ("optimizer", "layers", "head", "weights"), 2
    )
    adamw = recipes.load("contrastive").recipe.stages["contrastive"]
    lion = matrix.factors["optimizer"]["lion"]
    rate, decay = (float(lion[f"stages.contrastive.{key}"]) for key in ("learning_rate", "weight_decay"))
    assert 3 <= adamw.learning_rate / rate <= 10
    assert rate * decay == pytest.approx(adamw.learning_rate * adamw.weight_decay, rel=0.15)


def test_every_arm_of_one_two_joint_takes_as_many_pairs_in_as_many_steps() -> None:
    matrix = recipes.load_matrix("one-two-joint").matrix
    chains = [recipes.load(name).recipe.chained() for name in matrix.recipes]
    assert {sum(stage.steps for _, stage in chain) for chain in chains} == {116}
    pairs = [sum(stage.steps * stage.groups_per_step * stage.group_size for _, stage in chain) for chain in chains]
    assert set(pairs) == {7424}


def test_the_paper_has_four_recipes_two_bases_three_first_stages_and_four_sets() -> None:
    matrix = recipes.load_matrix("ecir2025").matrix
    assert (len(matrix.recipes), len(matrix.bases), len(matrix.first_stages), len(matrix.test)) == (4, 2, 3, 4)


def settings_of(stage: Stage) -> dict[str, object]:
    return {name: getattr(stage, name) for name in stage.__struct_fields__}


def test_the_papers_recipes_differ_in_nothing_but_their_chains() -> None:
    found = [recipes.load(name).recipe for name in recipes.load_matrix("ecir2025").matrix.recipes]
    assert all(recipe.stages == found[0].stages for recipe in found)
    assert all((recipe.data, recipe.evaluate) == (found[0].data, found[0].evaluate) for recipe in found)


def test_the_papers_settings_are_those_of_its_code() -> None:
    stages = recipes.load("ecir2025-cl-kd").recipe.stages
    cl, kd = settings_of(stages["cl"]), settings_of(stages["kd"])
    both = {"learning_rate": 1e-5, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.01, "clip": 10.0}
    both |= {"betas": (0.9, 0.999), "epsilon": 1e-8, "freeze": "positions", "max_length": 256, "precision": "bf16"}
    both |= {"truncation": "longest_first", "patience": 10, "validation_measure": "loss"}
    assert both.items() <= cl.items()
    assert both.items() <= kd.items()
    wanted = {"loss": "lce", "group_size": 100, "groups_per_step": 16, "window": (1, 200), "steps": 2_000_000}
    assert {**wanted, "validate_every": 250, "checkpoint_every": 25_000, "source": "labels"}.items() <= cl.items()
    wanted = {"loss": "ranknet", "group_size": 20, "groups_per_step": 32, "epochs": 15.0, "mean_over": "pairs"}
    assert {**wanted, "validate_every": 50, "checkpoint_every": 500, "source": "teacher"}.items() <= kd.items()


def test_rank_distillms_variants_share_their_first_stage_and_differ_in_the_second_ones_loss() -> None:
    one, other = (recipes.load(name).recipe.stages for name in ("rank-distillm", "rank-distillm-adr-mse"))
    assert one["pre-finetune"] == other["pre-finetune"]
    differing = {key for key, value in settings_of(one["finetune"]).items() if value != getattr(other["finetune"], key)}
    assert differing == {"loss"}


def test_paths_of_a_matrix_are_from_its_file_and_options_replace_its_lists(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("")
    text = 'name = "m"\nrecipes = ["./own.toml", "distill"]\nbaseline = "./own.toml"\ntest = ["./set"]\n'
    text += '[settings]\n"data.train" = "./train[:9]"\n"stages.cl.steps" = 3\n'
    (tmp_path / "m.toml").write_text(text)
    found = recipes.load_matrix(str(tmp_path / "m.toml"), {"seeds": [1, 2]}).matrix
    assert found.recipes == (str(tmp_path / "own.toml"), "distill")
    assert found.baseline == found.recipes[0]
    assert found.test == (str(tmp_path / "set"),)
    assert found.settings == {"data.train": f"{tmp_path}/train[:9]", "stages.cl.steps": 3}
    assert found.seeds == (1, 2)
    fewer = recipes.load_matrix(str(tmp_path / "m.toml"), {"recipes": ["distill"]}).matrix
    assert (fewer.recipes, fewer.baseline) == (("distill",), "")


PATHS_IN_TABLES = """
name = "m"
recipes = ["distill"]
[settings]
"stages.a.losses" = [{name = "lce"}, {name = "kl", teacher = "./t.run"}]
[factors.data.one]
"data.train" = [{set = "./x", weight = 2}, {set = "./y"}]
[factors.data.two]
data.test = ["./x"]
[factors.negatives.plain]
[factors.negatives.mined]
"stages.a.false_negatives" = {scores = "./s.run", max_score = 1.0}
"stages.a.negative_sources" = [{source = "mined", run = "../m.run"}]
"""


def test_paths_in_tables_of_settings_and_factors_are_from_the_matrixs_file(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(PATHS_IN_TABLES)
    found = recipes.load_matrix(str(tmp_path / "m.toml")).matrix
    assert found.settings == {
        "stages.a.losses": [{"name": "lce"}, {"name": "kl", "teacher": f"{tmp_path}/t.run"}],
    }
    assert found.factors["data"] == {
        "one": {"data.train": f"{tmp_path}/x * 2 + {tmp_path}/y"},
        "two": {"data": {"test": [f"{tmp_path}/x"]}},
    }
    assert found.factors["negatives"]["mined"] == {
        "stages.a.false_negatives": {"scores": f"{tmp_path}/s.run", "max_score": 1.0},
        "stages.a.negative_sources": [{"source": "mined", "run": f"{tmp_path.parent}/m.run"}],
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ecir2052", "matrix-not-found ecir2025"),
        ("no.toml", "matrix-unreadable no.toml"),
        ("a\0.toml", "matrix-unreadable"),
    ],
)
def test_a_matrix_nobody_knows_is_refused(name: str, expected: str) -> None:
    with refused(UsageError, *expected.split()):
        recipes.load_matrix(name)


def test_a_key_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('name = "m"\nrecipe = ["distill"]\n')
    with refused(RecipeError, "recipe", "recipes"):
        recipes.load_matrix(str(tmp_path / "m.toml"))
