"""The dry run of a matrix tells its time by a measurement of each kind of stage, run by run and in all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from cerank import recipes
from cerank.app import estimates, plans
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.outline_times import MOST_MEASURED, OutlineTimes
from cerank.machine import measured_speed
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.planning.workload import estimate_minutes
from cerank.recipes.plan import Plan
from tests.models.family_fixtures import write_encoder
from tests.worker.small import small_plan

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SPEED = MeasuredSpeed(train=8.0, score=20.0, load=3.0, time="2026-01-02T00:00:00+00:00")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Three recipes that share a stage, and a list of the runs with which this machine was measured."""
    plan, settings = small_plan(tmp_path)
    (tmp_path / "both.toml").write_text(recipes.render(plan.recipe))
    for name, chain in {"cl": '["contrastive"]', "kd": '["distill"]', "cl-kd": '["contrastive", "distill"]'}.items():
        (tmp_path / f"{name}.toml").write_text(f'extends = "./both.toml"\nname = "{name}"\nchain = {chain}\n')
    (tmp_path / "grid.toml").write_text(
        'name = "grid"\nrecipes = ["./cl.toml", "./kd.toml", "./cl-kd.toml"]\nseeds = [1, 2]\n'
    )
    measured: list[Plan] = []

    def measure(of_run: Plan, *, anew: bool = True) -> tuple[dict[str, MeasuredSpeed], str]:
        """As the machine would answer that was never measured before."""
        if not anew:
            return {}, ""
        measured.append(of_run)
        return dict.fromkeys((*of_run.recipe.chain, *of_run.recipe.baseline_models()), SPEED), "measured"

    monkeypatch.setattr(estimates, "measured", measure)
    return SimpleNamespace(folder=tmp_path, plan=plan, settings=settings, measured=measured)


def outlined(
    made: SimpleNamespace, *overrides: str, now: datetime | None = NOW, devices: int = 1, settings: object = None
) -> tuple[matrix_runs.MatrixOutline, OutlineTimes]:
    grid = matrix_runs.load_runs(recipes.load_matrix(str(made.folder / "grid.toml")), overrides)
    times = OutlineTimes(settings or made.settings, 0.0, now)
    return matrix_runs.outline(grid, made.settings, node_devices=devices, times=times), times


def test_each_run_is_told_by_one_measurement_and_what_they_share_counts_once(made: SimpleNamespace) -> None:
    found, times = outlined(made)
    assert [plan.recipe.name for plan in made.measured] == ["cl"]  # its stage is of the kind of the other one
    cl, kd, both = (row.minutes for row in found.rows[:3])
    alone = {
        part.part: part.minutes
        for part in estimate_minutes(plans.work_of(made.plan), dict.fromkeys(made.plan.recipe.chain, SPEED), {})
    }
    assert cl == pytest.approx(sum(minutes for part, minutes in alone.items() if "distill" not in part))
    assert both == pytest.approx(sum(minutes for part, minutes in alone.items() if "distill" in part))
    assert kd == pytest.approx(both)
    assert [row.minutes for row in found.rows[3:]] == [row.minutes for row in found.rows[:3]]  # the other seed
    assert sum(row.minutes for row in found.rows) == pytest.approx(estimates.total(found.work))
    assert SPEED.time in times.source
    # as a plan of the same run is told
    assert sum(part.pairs for part in found.work) == sum(
        part.pairs * (4 if "distill" in part.part else 2) for part in plans.work_of(made.plan)
    )


def test_only_what_makes_a_stage_faster_or_slower_is_measured_apart(made: SimpleNamespace) -> None:
    alike = ("stages.distill.group_size=8", "stages.distill.learning_rate=1e-4", "stages.distill.steps=3")
    outlined(made, *alike)
    assert len(made.measured) == 1
    outlined(made, "stages.distill.max_length=32")
    assert [plan.recipe.name for plan in made.measured[1:]] == ["cl", "kd"]
    made.measured.clear()
    model = write_encoder(made.folder / "reranker", "BertForSequenceClassification", num_labels=1)
    found, _ = outlined(made, f'baselines=["{model}"]')
    assert len(made.measured) == 1
    assert any(part.part.endswith("by reranker") for part in found.work)
    assert all(part.minutes is not None for part in found.work)


def test_a_matrix_of_very_many_kinds_is_not_measured_for_minutes(made: SimpleNamespace) -> None:
    times = OutlineTimes(made.settings, 0.0, NOW)
    stages = made.plan.recipe.stages
    for size in range(16, 16 + MOST_MEASURED + 2):
        changed = {name: msgspec.structs.replace(stage, max_length=size) for name, stage in stages.items()}
        recipe = msgspec.structs.replace(made.plan.recipe, stages=changed)
        work = times.timed(recipe, plans.work_of(made.plan))
        assert (estimates.total(work) is None) == (len(made.measured) == MOST_MEASURED and size >= 16 + MOST_MEASURED)
    assert len(made.measured) == MOST_MEASURED
    assert str(MOST_MEASURED) in times.why_unknown


def test_nothing_is_measured_where_an_input_is_missing_or_the_runs_are_for_another_machine(
    made: SimpleNamespace,
) -> None:
    found, times = outlined(made, "data.train=./gone")
    assert estimates.total(found.work) is None
    assert [row.minutes for row in found.rows] == [None] * 6
    before = times.why_unknown
    found, times = outlined(made, now=None)
    assert estimates.total(found.work) is None
    assert times.why_unknown != before
    assert made.measured == []


def test_several_devices_are_timed_by_what_they_did_together_or_as_a_lower_bound(made: SimpleNamespace) -> None:
    settings = msgspec.structs.replace(made.settings, devices="2")
    found, _ = outlined(made, devices=2, settings=settings)
    assert not found.is_measured
    alone = {part.part: part.minutes for part in found.work}
    halved = {part.part: part.minutes for part in found.together}
    assert halved == pytest.approx({part: minutes / 2 for part, minutes in alone.items()})
    (plan,) = made.measured
    fast = MeasuredSpeed(train=12.0, score=30.0, load=0.0, time="t")
    for _, stage in made.plan.recipe.chained():
        measured_speed.save_speed(Path(plan.cache), measured_speed.shared_speed_key(plan, stage, 2), fast)
    found, _ = outlined(made, devices=2, settings=settings)
    assert found.is_measured
    together = {part.part: part.minutes for part in found.together}
    train = next(part for part in found.work if part.part == "train contrastive")
    assert together["train contrastive"] == pytest.approx(train.pairs / 12.0 / 60)
