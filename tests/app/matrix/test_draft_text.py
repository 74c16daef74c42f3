"""The form of a new run and a recipe as text: back as they were, or with every mistake named."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.app.matrix import draft_text, drafts
from cerank.app.matrix.drafts import Draft


def a_draft() -> Draft:
    return Draft(
        sources=(drafts.recipe_source("contrastive"), drafts.recipe_source("distill")),
        bases=("minilm", "./a folder"),
        seeds="42, 50-52",
        settings={"stages.distill.learning_rate": "3e-6", "evaluate.margins": "nDCG@10=0.01"},
        label='my "label"',
    )


def test_a_form_comes_back_as_it_was() -> None:
    draft = a_draft()
    known = {source.source: source for source in draft.sources}
    assert draft_text.read_form(draft_text.form_text(draft), draft, known) == (draft, ())


def test_every_mistake_in_a_form_is_named_and_nothing_is_taken_over() -> None:
    draft = a_draft()
    text = 'recipes = ["contrastive", "nope"]\nbases = "minilm"\nsedes = "1"\nlabel = 1.5\nsettings = 3\n'
    same, mistakes = draft_text.read_form(text, draft, {})
    assert same is draft
    assert sorted(mistake.partition(":")[0] for mistake in mistakes) == [
        "bases",
        "label",
        "recipes",
        "sedes",
        "settings",
    ]
    assert draft_text.read_form("recipes = [", draft, {})[0] is draft


def test_settings_may_be_typed_as_toml_tables_and_numbers() -> None:
    text = 'recipes = ["distill"]\nseeds = [1, 2]\n[settings.stages.distill]\nsteps = 7\nwindow = [1, 20]\n'
    text += '[settings.evaluate]\nmargins = {"nDCG@10" = 0.01}\n'
    draft, mistakes = draft_text.read_form(text, Draft(), {})
    assert mistakes == ()
    assert draft.seeds == "1, 2"
    expected = {"stages.distill.steps": "7", "stages.distill.window": "1, 20", "evaluate.margins": "nDCG@10=0.01"}
    assert draft.settings == expected


def test_an_edited_recipe_becomes_changes_of_the_chosen_one_where_it_can(tmp_path: Path) -> None:
    draft = Draft(sources=(drafts.recipe_source("contrastive"),), bases=("minilm", "electra"), seeds="1, 2")
    before = draft.sources[0].recipe
    stages = {"contrastive": msgspec.structs.replace(before.stages["contrastive"], steps=7)}
    path = tmp_path / "recipe.toml"
    path.write_text(draft_text.recipe_text(msgspec.structs.replace(before, stages=stages)))
    changed, mistakes = draft_text.read_recipe(path, draft, before)
    assert mistakes == ()
    assert changed.settings == {"stages.contrastive.steps": "7"}
    assert (changed.sources, changed.bases, changed.seeds) == (draft.sources, draft.bases, draft.seeds)
    path.write_text(path.read_text().replace("contrastive", "other"))  # another stage: no change of the shipped recipe
    changed, mistakes = draft_text.read_recipe(path, draft, before)
    assert mistakes == ()
    assert [source.recipe.chain for source in changed.sources] == [("other",)]


def test_every_mistake_in_a_recipe_is_named(tmp_path: Path) -> None:
    draft = Draft(sources=(drafts.recipe_source("contrastive"),), bases=("minilm",))
    path = tmp_path / "recipe.toml"
    text = draft_text.recipe_text(draft.sources[0].recipe)
    path.write_text(text.replace("[stages.contrastive]", '[stages.contrastive]\nnegativs = "x"\nclip = -2.0\n'))
    same, mistakes = draft_text.read_recipe(path, draft, draft.sources[0].recipe)
    assert same is draft
    assert len(mistakes) >= 2


def test_numbers_far_from_the_recipes_own_are_asked_about_but_allowed() -> None:
    draft = Draft(sources=(drafts.recipe_source("contrastive"),), settings={"stages.contrastive.learning_rate": "100"})
    checked = drafts.check_draft(draft)
    assert checked.cells
    assert [warning.path for warning in checked.warnings] == ["stages.contrastive.learning_rate"]
    near = msgspec.structs.replace(draft, settings={"stages.contrastive.learning_rate": "1e-4"})
    assert drafts.check_draft(near).warnings == ()
