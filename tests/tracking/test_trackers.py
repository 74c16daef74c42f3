"""What the trackers' own libraries read of a tracked run, without a network."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from cerank.text.table_data import Column, Table
from cerank.tracking.tracker import Destination, MetricRow, TrackedRun
from cerank.tracking.trackers import TRACKERS

RUN = TrackedRun(key="2026-run", title="brisk-otter", recipe="small", settings={"base": "tiny", "stages.a.lr": 0.1})
ROWS = [MetricRow(step, 1.7e9 + step, {"distill/loss": 1.0 / step}) for step in (1, 2, 3)]
TABLE = Table("comparison", (Column("system", "system"), Column("mean", "mean", "number")), (("a", 0.5), ("b", None)))


def tracked(kind: str, folder: Path) -> str:
    """Send a small run to a tracker, in two parts, and return the tracker's id of it."""
    folder.mkdir()
    tracker = TRACKERS.find(kind)(RUN, Destination(project="tests", folder=folder, is_offline=True))
    tracker.log(ROWS[:2])
    tracker.close("paused")
    to = Destination(project="tests", folder=folder, is_offline=True, tracker_id=tracker.tracker_id)
    tracker = TRACKERS.find(kind)(RUN, to)
    tracker.log(ROWS[2:])
    tracker.result({"result/test/nDCG@10": 0.5}, [TABLE], "a and b are **equivalent**")
    tracker.close("finished")
    return tracker.tracker_id


def test_tensorboard_reads_curves_tables_and_verdict(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked("tensorboard", tmp_path / "t")
    read = EventAccumulator(str(tmp_path / "t" / "tests" / RUN.key))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("distill/loss")] == [
        (row.step, pytest.approx(row.values["distill/loss"])) for row in ROWS
    ]
    assert [event.value for event in read.Scalars("result/test/nDCG@10")] == [0.5]
    texts = {tag: read.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in read.Tags()["tensors"]}
    assert "equivalent" in texts["verdict/text_summary"]
    assert "| a | 0.5000 |" in texts["comparison/text_summary"]
    assert "stages.a.lr" in texts["settings/text_summary"]
    assert texts["outcome/text_summary"] == "finished"


@pytest.mark.slow
def test_mlflow_reads_curves_tables_and_verdict(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient

    key = tracked("mlflow", tmp_path / "m")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'm' / 'mlflow.db'}")
    history = client.get_metric_history(key, "distill/loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (row.step, row.values["distill/loss"]) for row in ROWS
    ]
    run = client.get_run(key)
    assert run.data.metrics["result/test/nDCG_at_10"] == 0.5
    assert run.data.params["stages.a.lr"] == "0.1"
    assert run.info.status == "FINISHED"
    written = {path.name: path.read_text() for path in (tmp_path / "m").rglob("*.*") if path.suffix in {".md", ".csv"}}
    assert "equivalent" in written["verdict.md"]
    assert written["comparison.csv"].splitlines() == ['"system","mean"', '"a",0.5', '"b",']


@pytest.mark.slow
def test_wandb_keeps_a_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    tracked("wandb", tmp_path / "w")
    files = sorted((tmp_path / "w").rglob("run-*.wandb"))
    assert len(files) == 2
    sent = b"".join(path.read_bytes() for path in files)
    for part in (b"distill/loss", b"equivalent", b"stages.a.lr", b"brisk-otter"):
        assert part in sent, part
    [table] = [json.loads(path.read_text()) for path in (tmp_path / "w").rglob("*.table.json")]
    assert table == {"columns": ["system", "mean"], "data": [["a", 0.5], ["b", None]]}


@pytest.mark.slow
def test_trackio_keeps_a_run_in_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    from trackio import utils

    if not str(utils.TRACKIO_DIR).startswith("/tmp"):  # it reads the variable when it is imported
        pytest.skip("run with TRACKIO_DIR=/tmp/... so that the test stays out of the user's database")
    tracked("trackio", tmp_path / "t")
    with sqlite3.connect(Path(utils.TRACKIO_DIR) / "tests.db") as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by id")]
    assert [row["distill/loss"] for row in rows if "distill/loss" in row][-3:] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert any(row.get("outcome") == "finished" for row in rows)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_an_error_of_the_tracker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions = pytest.importorskip("mlflow.exceptions")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(exceptions.MlflowException) as caught:
        TRACKERS.find("mlflow")(RUN, Destination(project="tests", folder=tmp_path))
    assert "127.0.0.1" in str(caught.value)
