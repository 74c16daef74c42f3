"""`cerank doctor --on NAME`: what a probe finds on a node, and what its silence means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cerank.app.checks import probe_executor
from cerank.app.checks.doctor import Finding
from cerank.errors import UsageError
from cerank.executors import probe as probing
from cerank.executors.interface import Job, SubmittedJob
from cerank.executors.probe import ProbeAnswer, probe
from cerank.files import json_records
from cerank.runs.job_records import JobState
from cerank.settings import Settings
from tests.executors.conftest import MemoryExecutor


class AnsweringExecutor(MemoryExecutor):
    """A node that looks at itself, or answers what it was given."""

    def __init__(self, answer: ProbeAnswer | None = None, *, sees_lab: bool = True) -> None:
        super().__init__()
        self.answer, self.sees_lab = answer, sees_lab

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:
        (job,) = jobs
        folder = Path(job.arguments[-1])
        if self.sees_lab:
            json_records.save(folder / "answer.json", self.answer or probe(folder))
        return super().submit(jobs, after)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(probing, "SIZE", 1 << 20)
    return Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")


def examined(settings: Settings, executor: MemoryExecutor, patience: float = 60.0) -> list[Finding]:
    return probe_executor.examine(settings, executor, patience=patience, poll_seconds=0.01)


def test_a_node_like_this_machine_is_well_and_leaves_nothing_behind(settings: Settings) -> None:
    findings = examined(settings, AnsweringExecutor())
    assert {finding.state for finding in findings} == {"good"}
    assert len(findings) >= 5
    assert list((settings.lab / "jobs").iterdir()) == []


def test_each_thing_that_would_stop_a_run_is_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryExecutor, "device", lambda self, setting: "cuda")
    monkeypatch.setattr(probe_executor, "is_on_this_machine", lambda base: True)
    bad = ProbeAnswer(host="node1", python="3.11", cerank="0.0.7", code="abc", error="read-only", skew=600.0)
    findings = examined(settings, AnsweringExecutor(bad))
    wrong = " ".join(finding.what for finding in findings if finding.state == "wrong")
    assert [word for word in ("0.0.7", "read-only", "GPU", "minilm") if word not in wrong] == []
    assert [finding.state for finding in findings if "600" in finding.what] == ["note"]
    gpu = msgspec.structs.replace(bad, devices=("cuda:0 A100",), gpu_works=False, gpu_error="old driver", error="")
    wrong = " ".join(finding.what for finding in examined(settings, AnsweringExecutor(gpu)) if finding.state == "wrong")
    assert "old driver" in wrong


def test_a_job_that_ends_without_an_answer_says_that_the_lab_is_not_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_executor, "AFTER_END", 0.02)
    executor = AnsweringExecutor(sees_lab=False)
    executor.told = {"1": JobState(phase="ended", word="FAILED", reason="exit code 2")}
    (finding,) = examined(settings, executor)
    told = finding.what
    assert finding.state == "wrong"
    assert "exit code 2" in told
    assert executor.canceled == []


def test_a_job_that_waits_too_long_is_canceled(settings: Settings) -> None:
    executor = AnsweringExecutor(sees_lab=False)
    executor.told = {"1": JobState(phase="pending", word="PENDING", reason="Resources")}
    (finding,) = examined(settings, executor, patience=0.1)
    assert (finding.state, executor.canceled) == ("wrong", ["1"])
    told = finding.what
    assert "Resources" in told


def test_the_folder_is_listed_at_each_look(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []

    def listing(folder: Path) -> Iterator[Path]:
        listed.append(folder)
        yield from ()

    monkeypatch.setattr(Path, "iterdir", listing)
    examined(settings, AnsweringExecutor(sees_lab=False), patience=0.05)
    assert [folder.parent for folder in listed[:1]] == [settings.lab.resolve() / "jobs"]


def test_a_refusal_is_a_finding(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = MemoryExecutor(refuse_after=0)
    (finding,) = examined(settings, executor)
    assert (finding.state, finding.what) == ("wrong", str(UsageError("no more jobs")))
