"""Settings that ask for more than base model or first stage hold are warned of, and of others nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.matrix import input_limits
from cerank.app.matrix.drafts import Draft, DraftRun, check_draft, recipe_source
from tests.tui.labs import made_collection

LONGEST = 512  # tokens that MiniLM reads


def runs_of(**settings: str) -> tuple[DraftRun, ...]:
    """The runs of a form with these settings; `__` stands for a dot in their keys."""
    given = {key.replace("__", "."): text for key, text in settings.items()}
    source = recipe_source("contrastive-then-distill")
    return check_draft(Draft(sources=(source,), bases=("minilm-4",), settings=given)).cells


@pytest.mark.parametrize(("length", "paths"), [(LONGEST, []), (LONGEST + 1, ["stages.distill.max_length"])])
def test_a_length_beyond_the_base_is_warned_of(length: int, paths: list[str], tmp_path: Path) -> None:
    runs = runs_of(stages__distill__max_length=str(length))
    limits = input_limits.find_limits(["minilm-4", "google/no-such-model"], [], tmp_path)
    warnings = input_limits.beyond(runs, limits)
    assert [warning.path for warning in warnings] == paths
    assert all("minilm-4" in warning.text and str(LONGEST) in warning.text for warning in warnings)


@pytest.mark.parametrize(("depth", "paths"), [(3, []), (4, ["data.depth"])])
def test_a_depth_beyond_the_first_stage_is_warned_of(depth: int, paths: list[str], tmp_path: Path) -> None:
    collection, run = str(made_collection(tmp_path)), tmp_path / "own.run"
    run.write_text("".join(f"q1 Q0 d{rank} {rank} {9 - rank} t\n" for rank in (1, 2, 3)) + "q2 Q0 d4 1 1 t\n")
    runs = runs_of(data__test=collection, data__first_stages=str(run), data__depth=str(depth))
    bases, pairs = input_limits.names_of(runs)
    warnings = input_limits.beyond(runs, input_limits.find_limits([], pairs, tmp_path))
    assert bases == ("minilm-4",)
    assert [warning.path for warning in warnings] == paths
    assert all("own.run" in warning.text and "3" in warning.text for warning in warnings)


def test_what_is_not_here_has_no_limit(tmp_path: Path) -> None:
    limits = input_limits.find_limits(["./no-such-folder"], [("no-such-dataset", "no-such.run")], tmp_path)
    assert limits == input_limits.InputLimits()
