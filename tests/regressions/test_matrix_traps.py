"""The paper's traps that concern names, files and the matrix as a whole, numbered as in test_paper_traps.py."""

from __future__ import annotations

import re
import typing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import typer.main

from cerank import recipes
from cerank.app import missing_inputs, plans
from cerank.app.matrix import matrix_runs
from cerank.core import decode
from cerank.datasets import irds
from cerank.datasets.aliases import ALIASES, DEV, DL, FIRST_STAGES, declared_measures, run_folders
from cerank.errors import UsageError
from cerank.evaluation.measures import check
from cerank.recipes.schema import Recipe, Stage
from cerank.runs import run_store
from cerank.settings import Settings
from tests.worker.small import small_plan, write_dataset


@pytest.mark.parametrize("folder", ["nq", "bm25-colbert", "rankgpt/dev-small", "trec-covid/dl19"])
def test_trap_9_no_dataset_is_guessed_from_parts_of_its_path(tmp_path: Path, folder: str) -> None:
    data = tmp_path / folder / "set"
    write_dataset(data, queries=4, documents=12)
    (data / "qrels").write_text((data / "qrels").read_text().replace(" 1\n", " 3\n"))
    assert declared_measures(str(data), 3) == DL
    assert run_folders(str(data), tmp_path)[0] != run_folders(Path(folder).name, tmp_path)[0]
    from cerank.datasets.open_datasets import measures_of, open_dataset
    from cerank.retrieval.first_stage import candidates

    found = open_dataset(str(data), tmp_path)
    assert measures_of(found) == DL
    with pytest.raises(UsageError) as caught:
        candidates(found, "colbertv2", 3, tmp_path)
    assert caught.value.code == "first-stage-not-found"


def test_trap_10_no_part_of_a_runs_name_comes_from_what_a_path_does_not_say(tmp_path: Path) -> None:
    plan, settings = small_plan(tmp_path)
    recipe = msgspec.structs.replace(plan.recipe, name="neither one nor the other")
    folder = run_store.create(settings.lab, msgspec.structs.replace(plan, recipe=recipe), b"", datetime.now(UTC))
    assert "none" not in folder.name.lower().replace("neither-one-nor", "")
    assert [folder.final(at, name).parent.name for at, name in enumerate(recipe.chain)] == [
        "1-contrastive",
        "2-distill",
    ]


def choices() -> list[tuple[str, str]]:
    hints = typing.get_type_hints(Stage)
    return [
        (key, str(value)) for key, hint in hints.items() for value in typing.get_args(hint) if isinstance(value, str)
    ]


def test_trap_11_every_choice_that_a_setting_offers_is_taken() -> None:
    assert len(choices()) > 15
    for key, value in choices():
        mistakes: list[str] = []
        assert getattr(decode.decode_table(Stage, {key: value}, "", mistakes), key) == value
        assert mistakes == []


@pytest.mark.parametrize("name", ["ecir2025", "ecir2025-ood", "rank-distillm"])
def test_trap_11_a_run_that_lies_where_the_program_says_is_the_run_that_its_recipes_read(
    name: str, tmp_path: Path
) -> None:
    cells = matrix_runs.load_runs(recipes.load_matrix(name)).cells
    found = missing_inputs.check_inputs([cell.recipe for cell in cells], tmp_path)
    told = [need for need in found.needs if need.kind in {"first stage", "teacher"}]
    assert told
    for need in told:
        place = re.search(r"place a TREC run at (\S+\.run) ", need.how)
        assert place, need
        path = Path(place[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1 Q0 2 1 1.0 x\n")
    again = missing_inputs.check_inputs([cell.recipe for cell in cells], tmp_path)
    assert not [need for need in again.needs if need.kind in {"first stage", "teacher"}]


def test_trap_14_each_test_set_is_measured_by_thresholds_that_its_labels_can_meet() -> None:
    assert declared_measures("dev-small", 1) == DEV
    with pytest.raises(UsageError) as caught:
        check(DL, {"q": {"d": 1}}, "the paper's measures on dev/small")
    assert caught.value.code == "measure-always-0"
    for name in recipes.shipped_matrices():
        matrix = recipes.load_matrix(name).matrix
        for test in (name for name in matrix.test if name in ALIASES):
            grade = irds.catalog_metadata(ALIASES[test].id).largest_grade
            asked = declared_measures(test, grade) if matrix.measures == ("auto",) else matrix.measures
            assert check(asked, {"q": {"d": grade}}, test) == asked


def test_trap_14_in_a_plan_every_dataset_keeps_its_own_measures(tmp_path: Path) -> None:
    plan, settings = small_plan(tmp_path)
    graded = write_dataset(tmp_path / "graded", seed=9)
    (graded / "qrels").write_text((graded / "qrels").read_text().replace(" 1\n", " 3\n"))
    tests = (*plan.recipe.data.test, str(graded))
    recipe = msgspec.structs.replace(
        plan.recipe,
        force=("shared_queries",),
        data=msgspec.structs.replace(plan.recipe.data, test=tests),
        evaluate=msgspec.structs.replace(plan.recipe.evaluate, measures=("auto",)),
    )
    made = plans.plan_of(recipe, settings, now=datetime.now(UTC))
    assert (made.measures_on(tests[0]), made.measures_on(tests[1])) == (DEV, DL)
    assert made.recipe.evaluate.measures == ("nDCG@10", "RR@10", "AP", "RR(rel=2)@10", "AP(rel=2)")
    assert made.fingerprint != plan.fingerprint


def commands() -> dict[str, set[str]]:
    """Each command's options; a group's commands as "group command"."""
    from cerank.cli.typer_app import app

    found: dict[str, set[str]] = {}
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]  # click's groups have them
        for inner, one in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = {option for each in one.params for option in each.opts}
        found[name] = {option for each in command.params for option in each.opts}
    return found


def test_trap_17_every_command_that_recipes_and_hints_name_exists_with_its_options() -> None:
    folder = Path(recipes.__file__).parent
    texts = [path.read_text() for path in (*folder.glob("*.toml"), *folder.glob("matrices/*.toml"))]
    texts += [FIRST_STAGES[name].source for name in FIRST_STAGES]
    for dataset, first in (("msmarco-train", name) for name in FIRST_STAGES):
        from cerank.datasets.aliases import missing_run

        texts.append(str(missing_run(dataset, "/place", first)))
    known = commands()
    named = [found for text in texts for found in re.findall(r"cerank ((?:[a-z]+ ?){1,2})([^`\n]*)", text)]
    assert len(named) > 5
    for words, rest in named:
        parts = words.split()
        command = " ".join(parts[:2]) if " ".join(parts[:2]) in known else parts[0]
        assert command in known, words
        assert set(re.findall(r"--[a-z-]+", rest)) <= known[command], (words, rest)


def test_trap_17_every_published_file_that_a_hint_names_is_one_that_can_be_asked_for() -> None:
    from cerank.datasets.aliases import missing_run
    from cerank.importing.format_catalog import FORMATS
    from cerank.importing.published_files import PUBLISHED_FILES

    told = " ".join(str(missing_run("msmarco-train", "/place", name)) for name in FIRST_STAGES)
    assert set(re.findall(r"cerank data fetch ([\w-]+)", told)) <= set(PUBLISHED_FILES)
    assert set(re.findall(r"cerank data import ([\w-]+)", told)) <= set(FORMATS)
    assert set(re.findall(r"marco-train[\w.-]+\.jsonl?", told)) <= {one.file for one in PUBLISHED_FILES.values()}


def test_trap_20_the_papers_matrix_has_several_seeds_and_one_family_of_all_its_comparisons(tmp_path: Path) -> None:
    settings = Settings(lab=tmp_path / "lab", cache=tmp_path, device="cpu", threads=1, format="")
    grid = matrix_runs.load_runs(recipes.load_matrix("ecir2025"))
    assert len({cell.recipe.seed for cell in grid.cells}) >= 3
    assert matrix_runs.outline(grid, settings).comparisons == 216  # the paper's own count, uncorrected there
    recipe: Recipe = grid.cells[0].recipe
    assert recipe.evaluate.margins["nDCG@10"] > 0  # what is no difference is said before any run
