"""The teachers of a lab, by keys: what they cost, what their checks found, and a job's progress."""

from __future__ import annotations

import gzip

import msgspec
import pytest
import textual
from textual.widgets import DataTable, Static

from cerank.app.teaching.lab_teachers import CHECK, KeptCheck, teachers_of
from cerank.core.metrics import Progress
from cerank.files import json_records
from cerank.retrieval.teachers import Repairs
from cerank.teachers.engines.engine import Usage
from cerank.teachers.ranking_files import Provenance
from cerank.tui.app import CerankApp
from cerank.tui.screens.teachers_screen import TeachersScreen
from tests.tui.conftest import press, settle, text_of
from tests.tui.labs import LabFolder
from tests.tui.test_snapshots import TAKEN_WITH, Compare

_SERVER = "http://localhost:8000/v1"
_ZEPHYR = "castorini/rank_zephyr_7b_v1_full"
_TEACHERS: dict[str, dict[str, object]] = {
    "zephyr": {"kind": "listwise", "model": _ZEPHYR, "server": _SERVER},
    "judge": {"kind": "graded", "model": "Qwen/Qwen3-8B", "server": _SERVER},
}


def _lab(folder: LabFolder) -> None:
    """A run whose teacher is at work, of which earlier rankings and a check are kept, and a teacher without any."""
    run = folder.running(folder.run(teachers=_TEACHERS))
    json_records.save(
        run.progress, Progress(phase="teacher", detail="distill", done=120, total=768, time="2026-11-23T10:00:10+00:00")
    )
    _made(folder)


def _made(folder: LabFolder, identity: str = "0123456789ab", **changed: object) -> None:
    """Rankings of zephyr with a check."""
    made = folder.path / "teachers" / "rankings" / f"zephyr-{identity}"
    made.mkdir(parents=True)
    provenance = Provenance(
        name="zephyr", identity=identity, kind="listwise", model=_ZEPHYR, place=_SERVER,
        has_scores=False, decisive={}, documents="d", datasets=("pydocs/train",), first_stage="bm25",
        queries=300, failed={"cut off": 2}, calls=600, usage=Usage(1_200_000, 60_000), cost=0.25, currency="USD",
        repairs=Repairs(repaired=30), unchanged_windows=60, windows=600, created="2026-11-22T09:00:00+00:00",
    )  # fmt: skip
    json_records.save(made / "teacher.json", msgspec.structs.replace(provenance, **changed))
    json_records.save(
        made / CHECK,
        KeptCheck(
            dataset="pydocs/validation", queries=100, measure="nDCG@10", verdict="worse", difference=-0.12,
            warnings=("zephyr ranks worse than the first stage: what a model learns from it is worse, too",),
        ),
    )  # fmt: skip
    (made / "ranking.run.gz").write_bytes(gzip.compress(b""))


async def test_the_teachers_are_shown_with_cost_check_and_progress(folder: LabFolder, app: CerankApp) -> None:
    _lab(folder)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "T")
        await settle(pilot)
        assert isinstance(app.screen, TeachersScreen)
        seen = text_of(app)
        for figure in ("600 calls", "0.25 USD", "120 of 768", "5.0%", "10.0%", "worse", "nDCG@10 -0.120", _SERVER):
            assert figure in seen, figure
        assert app.screen.query_one("#teachers", DataTable).row_count == 2
        await press(pilot, "j")
        assert "Qwen/Qwen3-8B" in text_of(app)
        await press(pilot, "escape")
        assert not isinstance(app.screen, TeachersScreen)


async def test_a_lab_without_teachers_says_where_to_read_of_them(folder: LabFolder, app: CerankApp) -> None:
    folder.finished(folder.started(folder.run(), 5))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "T")
        await settle(pilot)
        assert "cerank guide teachers" in text_of(app)


@pytest.mark.skipif(not textual.__version__.startswith(TAKEN_WITH), reason=f"taken with Textual {TAKEN_WITH}")
def test_the_screen_looks_as_it_did(folder: LabFolder, app: CerankApp, snap_compare: Compare) -> None:
    _lab(folder)

    async def keys(pilot: object) -> None:
        await settle(pilot)  # type: ignore[arg-type]
        await press(pilot, "T")  # type: ignore[arg-type]
        await settle(pilot)  # type: ignore[arg-type]

    assert snap_compare(app, terminal_size=(120, 36), run_before=keys)


def test_an_unreadable_record_is_passed_over(folder: LabFolder) -> None:
    _lab(folder)
    bad = folder.path / "teachers" / "rankings" / "bad-000"
    bad.mkdir()
    (bad / "teacher.json").write_text("{")
    assert [(teacher.name, teacher.queries) for teacher in teachers_of(folder.path, ())] == [("zephyr", 300)]


def test_rankings_of_one_teacher_for_several_documents_are_summed(folder: LabFolder) -> None:
    _made(folder)
    _made(
        folder, "ba9876543210", datasets=("pydocs/train", "other"), queries=50, failed={"cut off": 1, "refused": 4},
        calls=200, windows=200, cost=0.5, created="2026-11-23T09:00:00+00:00",
    )  # fmt: skip
    _made(folder, "aaaaaaaaaaaa", cost=2.0, currency="EUR", windows=0, unchanged_windows=0, repairs=Repairs())
    (teacher,) = teachers_of(folder.path, ())
    assert (teacher.queries, teacher.calls, teacher.tokens) == (650, 1400, 3 * 1_260_000)
    assert teacher.failed == {"cut off": 5, "refused": 4}
    assert teacher.datasets == ("pydocs/train", "other")
    assert teacher.costs == {"USD": 0.75, "EUR": 2.0}
    assert (teacher.repaired, teacher.unchanged) == (60 / 800, 120 / 800)


async def test_an_ensemble_adds_no_calls_to_its_members_and_shows_their_places(
    folder: LabFolder, app: CerankApp
) -> None:
    teachers = {
        "both": {"kind": "ensemble", "members": ["judge", "scorer"]},
        "judge": _TEACHERS["judge"],
        "scorer": {"kind": "cross-encoder", "model": "minilm"},
    }
    folder.finished(folder.started(folder.run(teachers=teachers), 5))
    _made(folder)
    parts = {"members": [{"settings": {"server": _SERVER}}, {"settings": {}}]}
    _made(folder, "bbb", name="older", kind="ensemble", model="", place="in process", cost=None, decisive=parts)
    places = {teacher.name: teacher.places for teacher in teachers_of(folder.path, ())}
    assert places == {"zephyr": (_SERVER,), "older": (_SERVER, "in process")}
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "T")
        await settle(pilot)
        assert "600 calls" in text_of(app)  # zephyr's, once
        detail = app.screen.query_one("#teacher", Static)
        assert {"both:", "ensemble;", _SERVER, "stay"} <= set(str(detail.render()).split())
        await press(pilot, "j", "j", "j")
        words = set(str(detail.render()).split())
        assert {"scorer:", "minilm;", "stay"} <= words
        assert words.isdisjoint({"go", _SERVER})


async def test_teachers_of_one_name_are_told_apart_by_their_hosts(folder: LabFolder, app: CerankApp) -> None:
    _made(folder)
    _made(folder, "ba9876543210", place="https://elsewhere.example/v1")
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        await press(pilot, "T")
        await settle(pilot)
        seen = text_of(app)
        assert "zephyr localhost:8000" in seen
        assert "zephyr elsewhere.example" in seen
