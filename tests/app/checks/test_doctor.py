"""A lab that is well says so; one that is not names the file and what to do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from cerank.app.checks import doctor
from cerank.app.checks.verify_run import verify
from cerank.cli.typer_app import app
from cerank.machine.measured_speed import MeasuredSpeed
from cerank.runs import checksums, run_store
from cerank.runs.layout import QueueFolder
from tests.worker.small import small_plan, small_run


@pytest.fixture(scope="module")
def plan_and_settings(tmp_path_factory):
    return small_plan(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def lab(plan_and_settings, tmp_path):
    import msgspec

    plan, settings = plan_and_settings
    settings = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    return small_run(tmp_path, plan, settings), settings


def wrong(settings, **how):
    return [one for one in doctor.examine(settings, **how) if one.state == "wrong" and "GB free" not in one.what]


def test_a_sound_lab_has_nothing_wrong(lab):
    _, settings = lab
    assert wrong(settings) == []


def test_a_damaged_file_is_named_with_what_to_do_and_marks_the_run_until_it_is_mended(lab):
    run, settings = lab
    checksums.write(run, run.overlaps, b"{}\n")
    run.overlaps.write_bytes(b"{]\n")
    (found,) = wrong(settings)
    assert "overlaps.json" in found.what
    assert "cerank resume" in found.hint
    assert run_store.status(run, datetime.now(UTC)).state == "damaged"
    assert wrong(settings, fix=True) == []
    assert wrong(settings) == []
    assert verify(run, datetime.now(UTC)).problems == ()
    assert run_store.status(run, datetime.now(UTC)).state == "waiting"


def test_leftovers_and_an_unreadable_queue_are_mended_on_demand(lab):
    run, settings = lab
    left = run.path.with_name(".half-made.tmp")
    left.mkdir()
    queue = QueueFolder(settings.lab)
    queue.path.mkdir()
    queue.entries.write_bytes(b"\0\0")
    assert [one.where for one in wrong(settings)] == [str(queue.entries)]
    assert left.exists()
    assert wrong(settings, fix=True) == []
    assert not left.exists()
    assert not queue.entries.exists()


def test_verify_exits_with_1_for_a_damaged_run_and_0_for_a_sound_one(lab):
    run, settings = lab
    where = ["--lab", str(settings.lab)]
    assert CliRunner().invoke(app, ["verify", run.name, *where]).exit_code == 0
    run.recipe.write_bytes(b"changed")
    out = CliRunner().invoke(app, ["verify", run.name, *where])
    assert out.exit_code == 1
    assert "recipe.toml" in out.stdout


def test_the_expected_time_of_the_main_job_comes_from_what_was_measured_here(lab, monkeypatch):
    _, settings = lab
    monkeypatch.setattr(doctor, "processor_findings", list)
    told = []
    for rate in (50.0, 25.0):
        pace = MeasuredSpeed(
            train=rate, score=2 * rate, load=0.1, embed=rate, precision="fp32", time="2026-01-01T00:00:00+00:00"
        )
        monkeypatch.setattr("cerank.machine.measured_speed.load_speed", lambda cache, key, pace=pace: pace)
        (found,) = [one for one in doctor.examine(settings, with_speed=True) if doctor.MAIN_JOB in one.where]
        assert found.state == "good"
        assert found.is_told
        assert "2026-01-01" in found.what
        told.append(found.what)
    assert told[0] != told[1]


def test_the_main_job_has_no_time_where_its_base_is_not_here(lab, monkeypatch):
    _, settings = lab
    monkeypatch.setattr(doctor, "processor_findings", list)
    monkeypatch.setattr(doctor, "is_on_this_machine", lambda base: False)
    (found,) = [one for one in doctor.examine(settings, with_speed=True) if doctor.MAIN_JOB in one.where]
    assert (found.state, found.is_told) == ("note", False)
