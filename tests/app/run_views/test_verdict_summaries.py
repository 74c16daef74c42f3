"""The verdict that lists show for a run."""

from __future__ import annotations

from pathlib import Path

from cerank.app.run_views import verdict_summaries
from tests.trained_run import TrainedRun


def test_the_verdict_of_a_run_is_over_the_first_stage_that_its_score_is_over(
    trained: TrainedRun, tmp_path: Path
) -> None:
    first, second = trained.plan.recipe.data.first_stages  # a list shows the score over the first one
    summary = verdict_summaries.save_summary(tmp_path, trained.folder)
    assert summary is not None
    assert f"over {first}" in summary.sentence
    assert f"over {second}" not in summary.sentence
    assert verdict_summaries.load_summary(tmp_path, trained.folder) == summary
