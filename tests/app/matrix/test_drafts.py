"""Drafts: what is typed becomes the same recipe that the command line makes, or a mistake beside its field."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank import recipes
from cerank.app import Lab
from cerank.app.matrix import drafts, matrix_planning, recipe_form
from cerank.app.matrix.drafts import Draft, check_draft
from cerank.errors import UsageError
from cerank.models.bases import BASES, is_on_this_machine
from cerank.recipes.loss_specs import LOSSES
from cerank.recipes.schema import Recipe
from cerank.settings import Settings

BOTH = drafts.recipe_source("contrastive-then-distill")


def draft(settings: Mapping[str, str] | None = None, **given: object) -> Draft:
    return Draft(**({"sources": (BOTH,), "settings": dict(settings or {})} | given))


def mistakes_of(found: Draft) -> dict[str, str]:
    return {mistake.path: mistake.text for mistake in check_draft(found).errors}


def recipe_by(command: str) -> Recipe:
    """The recipe that a command asks for, by the library that the command line uses."""
    from cerank.app.run_request import RunRequest, load_recipe

    words = shlex.split(command)
    assert words[:2] == ["cerank", "run"]
    given: dict[str, list[str]] = {}
    rest = iter(words[2:])
    for word in rest:
        given.setdefault(word, []).append("" if word == "--queue" else next(rest))
    one = {name: values[-1] for name, values in given.items()}
    request = RunRequest(
        recipes=(one["--recipe"],),
        bases=tuple(given.get("--base", ())),
        dataset=one.get("--dataset", ""),
        seed=int(one["--seed"]) if "--seed" in one else None,
        first_stages=tuple(given.get("--first-stage", ())),
        depth=int(one["--depth"]) if "--depth" in one else None,
        overrides=tuple(given.get("--set", ())),
    )
    return load_recipe(request).recipe


def test_bases_recipes_and_seeds_make_a_matrix() -> None:
    found = check_draft(
        draft(
            sources=(BOTH, drafts.recipe_source("distill")), bases=("minilm", "electra"), seeds="1-3, 7", label="night"
        )
    )
    assert len(found.cells) == 2 * 2 * 4
    assert len({(cell.recipe.name, cell.recipe.base, cell.recipe.seed) for cell in found.cells}) == 16
    assert len({cell.label for cell in found.cells}) == 16
    assert all(recipe_by(cell.command) == cell.recipe for cell in found.cells)


def test_nothing_changed_keeps_the_recipe_byte_for_byte() -> None:
    (cell,) = check_draft(draft()).cells
    assert cell.toml == BOTH.toml
    assert cell.command == "cerank run --recipe contrastive-then-distill --queue"


def test_what_is_typed_arrives_in_the_recipe_and_in_the_command() -> None:
    typed = {
        "stages.distill.learning_rate": "3e-6",
        "stages.contrastive.window": "1-20",
        "stages.contrastive.betas": "0.8, 0.99",
        "data.test": "one, ./two[:5%]",
        "data.first_stages": "bm25, runs/a.run",
        "data.depth": "17",
        "evaluate.measures": "AP(rel=2)@100, RR@10",
        "evaluate.margins": "nDCG@10 = 0.02, AP(rel=2)@100 = 0.02, RR@10=1e-3",
        "name": "true",
        "description": 'a "quoted" \\ one',
    }
    (cell,) = check_draft(draft(typed)).cells
    assert cell.recipe.stages["distill"].learning_rate == 3e-6
    assert cell.recipe.stages["contrastive"].window == (1, 20)
    assert cell.recipe.data.test == ("one", "./two[:5%]")
    assert cell.recipe.name == "true"
    assert cell.recipe.evaluate.margins == {"nDCG@10": 0.02, "AP(rel=2)@100": 0.02, "RR@10": 0.001}
    assert recipe_by(cell.command) == cell.recipe
    assert b"3e-06" in cell.toml


def test_one_dataset_for_all_three_parts_becomes_its_option() -> None:
    (cell,) = check_draft(draft(drafts.data_from("vaswani"))).cells
    assert "--dataset vaswani" in cell.command
    assert recipe_by(cell.command) == cell.recipe


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "\0" not in text))
def test_any_text_typed_for_a_name_reads_back_from_the_command(typed: str) -> None:
    found = check_draft(draft({"description": typed, "data.train": typed}))
    for cell in found.cells:
        assert recipe_by(cell.command) == cell.recipe


@given(st.sampled_from(sorted(recipe_form.texts(BOTH.recipe))), st.text(max_size=12))
def test_whatever_is_typed_gives_runs_or_mistakes_and_nothing_else(path: str, typed: str) -> None:
    found = check_draft(draft({path: typed}))
    assert bool(found.cells) != bool(found.errors)


@pytest.mark.parametrize(
    ("path", "typed", "said"),
    [
        ("stages.distill.steps", "many", "a whole number, from 0"),
        ("stages.distill.steps", "0", "steps or epochs"),
        ("stages.distill.learning_rate", "0", "a number, above 0"),
        ("stages.distill.learning_rate", "inf", "a number, above 0"),
        ("stages.contrastive.group_size", "1", "a whole number, from 2"),
        ("stages.contrastive.window", "1", "two numbers"),
        ("stages.contrastive.window", "9, 3", "ends before it"),
        ("stages.contrastive.loss", "ranknt", "did you mean 'ranknet'"),
        ("stages.distill.precision", "fp8", "one of fp32, bf16"),
        ("data.test", " , ", "name at least one"),
        ("data.depth", "", "a whole number"),
        ("evaluate.margins", "0.02", "MEASURE=NUMBER"),
        ("evaluate.margins", "RR@10 = much", "a number"),
        ("evaluate.margins", "nDCG@10 = 0", "nDCG@10: expected"),
    ],
)
def test_each_mistake_stands_beside_its_field(path: str, typed: str, said: str) -> None:
    found = mistakes_of(draft({path: typed}))
    assert said in found[path]


def test_a_loss_that_cannot_learn_from_its_source_is_said_at_the_source() -> None:
    found = mistakes_of(draft({"stages.distill.loss": "lce"}))
    assert '"lce"' in found["stages.distill.source"]


def test_all_mistakes_are_said_at_once() -> None:
    found = mistakes_of(
        draft({"stages.distill.steps": "x", "data.test": ""}, bases=("mnlm",), seeds="5-1", device="gpu")
    )
    assert {"stages.distill.steps", "base", "seeds", "device"} <= found.keys()
    assert "minilm" in found["base"]


def test_nothing_chosen_is_a_mistake_at_the_recipes() -> None:
    assert mistakes_of(Draft()).keys() == {"recipes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1, x", "'x' is not a seed"),
        ("3-1", "before it starts"),
        ("1 1", "is given twice"),
        ("0-100", "at most 100"),
        (str(2**63), "too large"),
        ("-4", "is not a seed"),
    ],
)
def test_seeds_that_cannot_be_are_refused(text: str, said: str) -> None:
    assert said in drafts.seeds_in(text)[1]


def test_seeds_are_lists_and_ranges() -> None:
    assert drafts.seeds_in("42, 7-9 1") == ((42, 7, 8, 9, 1), "")
    assert drafts.seeds_in("  ") == ((), "")


def test_a_matrix_of_thousands_is_a_slip() -> None:
    assert "500 at most" in mistakes_of(draft(seeds="1-100", bases=tuple(BASES)))["seeds"]


@pytest.mark.parametrize("is_changed", [False, True])
@pytest.mark.parametrize("name", recipes.shipped())
def test_the_draft_of_a_recipe_asks_for_just_that_recipe(name: str, is_changed: bool) -> None:
    last = recipes.load(name).recipe.chain[-1]
    overrides = ["seed=7", "base=electra", f"stages.{last}.learning_rate=3e-6"] if is_changed else []
    wanted = recipes.load(name, overrides).recipe
    assert (wanted.stages[last].learning_rate == 3e-6) == is_changed
    (cell,) = check_draft(drafts.draft_of(wanted)).cells
    assert cell.recipe == wanted
    assert recipe_by(cell.command) == wanted


def test_a_margin_of_the_recipes_own_is_changed_but_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "distill"\n[evaluate]\nmargins = { "nDCG@10" = 0.03 }\n')
    own = (drafts.recipe_source(str(tmp_path / "mine.toml")),)
    (cell,) = check_draft(draft({"evaluate.margins": "nDCG@10 = 0.05"}, sources=own)).cells
    assert cell.recipe.evaluate.margins == {"nDCG@10": 0.05}
    assert recipe_by(cell.command) == cell.recipe
    found = mistakes_of(draft({"evaluate.margins": "RR@10 = 0.05"}, sources=own))
    assert "nDCG@10" in found["evaluate.margins"]


def test_a_recipe_of_other_stages_is_taken_whole_and_its_command_names_the_file_to_save() -> None:
    stages = {"alone": BOTH.recipe.stages["contrastive"]}
    wanted = msgspec.structs.replace(BOTH.recipe, name="My Own", chain=("alone",), stages=stages)
    found = drafts.draft_of(wanted)
    (cell,) = check_draft(found).cells
    assert cell.recipe == wanted
    assert found.sources[0].source == ""
    assert "--recipe my-own.toml" in cell.command


def test_every_key_of_a_stage_stands_in_the_form_with_its_meaning() -> None:
    stage = next(group for group in recipe_form.groups(BOTH.recipe) if group.title == "distill")
    assert [row.key for row in stage.rows] == [
        key
        for key in BOTH.recipe.stages["distill"].__struct_fields__
        if key not in {"adapter", "losses", "negative_sources", "false_negatives", "filter", "curriculum", "passages"}
    ]
    assert all(row.meaning and row.expected for row in stage.rows)
    assert {row.key: row for row in stage.rows}["loss"].choices == tuple(sorted(LOSSES))


@pytest.mark.parametrize("path", sorted(recipe_form.texts(BOTH.recipe)))
def test_every_setting_reads_back_from_its_own_text(path: str) -> None:
    (cell,) = check_draft(draft({path: recipe_form.texts(BOTH.recipe)[path]})).cells
    assert cell.recipe == BOTH.recipe


def test_a_setting_that_the_recipe_has_cannot_be_left_open() -> None:
    wrong = check_draft(draft({"stages.distill.precision": ""}))
    assert [error.path for error in wrong.errors] == ["stages.distill.precision"]
    assert not wrong.cells


# --- planning


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    if not is_on_this_machine(BASES["minilm"]):
        pytest.skip("needs the weights of minilm on this machine")
    return Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")


def collection(folder: Path, queries: int = 10) -> str:
    """A dataset in a folder, one relevant document a query."""
    folder.mkdir()
    docs = "".join(f'{{"doc_id": "d{at}", "text": "word{at} and more"}}\n' for at in range(queries * 3))
    (folder / "docs.jsonl").write_text(docs)
    (folder / "queries.tsv").write_text("".join(f"q{at}\tword{at}\n" for at in range(queries)))
    (folder / "qrels").write_text("".join(f"q{at} 0 d{at} 1\n" for at in range(queries)))
    return str(folder)


def plan(found: Draft, settings: Settings) -> matrix_planning.PlannedMatrix:
    cells = check_draft(found).cells
    assert cells
    chosen = Lab(settings).plan_settings(found.device)
    return matrix_planning.plan_runs(cells, chosen, datetime(2026, 11, 23, tzinfo=UTC), lambda _: None)


def test_a_matrix_is_planned_once_for_all_seeds_and_its_work_is_the_sum(tmp_path: Path, settings: Settings) -> None:
    data = drafts.data_from(collection(tmp_path / "c"))
    one = plan(draft(data, seeds="1"), settings)
    three = plan(draft(data, seeds="1-3", label="x"), settings)
    assert [found.recipe.seed for found in three.plans] == [1, 2, 3]
    assert [found.label for found in three.plans] == ["x s1", "x s2", "x s3"]
    assert three.pairs == 3 * one.pairs > 0
    assert three.plans[0].fingerprint == one.plans[0].fingerprint
    assert len({found.fingerprint for found in three.plans}) == 3


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("data.train", "./nowhere"),
        ("data.validation", "pydocs/vaildation"),
        ("data.first_stages", "bm52"),
        ("data.validation_first_stage", "bm52"),
        ("stages.distill.teacher", "missing.run"),
        ("stages.distill.dataset", "./nowhere"),
        ("evaluate.measures", "nDGC@10"),
        ("stages.distill.validation_measure", "nDGC@10"),
    ],
)
def test_what_planning_refuses_is_said_beside_its_field(
    path: str, typed: str, tmp_path: Path, settings: Settings
) -> None:
    data = drafts.data_from(collection(tmp_path / "c"))
    found = plan(draft(data | {path: typed}), settings)
    assert [mistake.path for mistake in found.errors] == [path]
    assert not found.plans


def test_every_run_of_a_matrix_is_queued(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "start_queue", lambda self: None)  # no process of the queue outlives the test
    matrix = plan(draft(drafts.data_from(collection(tmp_path / "c")), seeds="1-2"), settings)
    lab = Lab(settings)
    folders = matrix_planning.launch(lab, matrix)
    assert [folder.name for folder in lab.queued()] == [folder.name for folder in folders]
    assert len(folders) == 2
    assert {row.plan.recipe.seed for row in lab.listed() if row.plan} == {1, 2}


def test_a_device_that_is_not_here_refuses_the_launch(tmp_path: Path, settings: Settings) -> None:
    matrix = plan(draft(drafts.data_from(collection(tmp_path / "c")), device="cuda:99"), settings)
    with pytest.raises(UsageError):
        matrix_planning.launch(Lab(settings), matrix)
