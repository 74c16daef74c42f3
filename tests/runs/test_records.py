from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from cerank.core.metrics import Progress
from cerank.errors import RunFailedError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.runs.records import Attempt, Done, Failure
from tests.files.crashes import crash_points


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    for record in (
        Attempt(number=1, started="2026-11-23T10:43:31+00:00", versions={"torch": "2.13"}, threads=2),
        Done(time="2026-11-23T10:43:31+00:00", seconds=0.1 + 0.2),
        Failure(kind="crash", what="é\n\x1b"),
    ):
        json_records.save(tmp_path / "record.json", record)
        assert json_records.load(tmp_path / "record.json", type(record)) == record


def test_a_record_cut_at_any_disk_operation_is_the_old_one_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    old, new = Progress("train", done=1), Progress("train", done=2)
    seen = set()
    for _ in crash_points(lambda: json_records.save(path, new), lambda: json_records.save(path, old)):
        seen.add(json_records.load(path, Progress).done)
    assert seen == {1, 2}


def test_a_number_that_json_cannot_say_is_refused_and_the_old_record_kept(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    json_records.save(path, Done(time="", seconds=1.0))
    with pytest.raises(RunFailedError):
        json_records.save(path, Done(time="", seconds=float("nan")))
    assert json_records.load(path, Done).seconds == 1.0


def test_a_missing_record_is_damage_unless_it_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DamagedError):
        json_records.load(tmp_path / "done.json", Done)
    assert json_records.load_if_there(tmp_path / "done.json", Done) is None


def test_the_half_characters_of_an_undecodable_name_are_written_out(tmp_path: Path) -> None:
    json_records.save(tmp_path / "failure.json", Failure(kind="crash", what="no file \udcff"))
    assert json_records.load(tmp_path / "failure.json", Failure).what == "no file \\udcff"


def test_a_timestamp_is_in_utc_and_needs_a_zone() -> None:
    east = datetime(2026, 11, 23, 12, 43, 31, tzinfo=timezone(timedelta(hours=2)))
    assert json_records.timestamp(east) == json_records.timestamp(east.astimezone(UTC)) == "2026-11-23T10:43:31+00:00"
    with pytest.raises(ValueError, match="zone"):
        json_records.timestamp(east.replace(tzinfo=None))
