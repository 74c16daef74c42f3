"""A scripted Slurm on PATH, and an executor in memory; no test here needs a cluster."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cerank.errors import UsageError
from cerank.executors.interface import Job, Needs, SubmittedJob
from cerank.runs.job_records import JobState

# Each program writes its arguments to calls.txt and prints what the test has put into PROGRAM.out; PROGRAM.err refuses.
PROGRAM = """#!/bin/sh
name=${0##*/}
here=${0%/*}
echo "$name $*" >>"$here/calls.txt"
if [ -f "$here/$name.err" ]; then cat "$here/$name.err" >&2; exit 1; fi
if [ "$name" = sbatch ]; then
  count=$(cat "$here/count" 2>/dev/null || echo 100); echo $((count + 1)) >"$here/count"; echo "$count"
  exit 0
fi
cat "$here/$name.out" 2>/dev/null
exit 0
"""


class ScriptedSlurm:
    """The folder of the programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
            path = folder / name
            path.write_text(PROGRAM)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answers(self, program: str, text: str) -> None:
        (self.folder / f"{program}.out").write_text(text)

    def refuses(self, program: str, text: str) -> None:
        (self.folder / f"{program}.err").write_text(text)

    def squeue(self, *rows: str) -> None:
        """Rows of JobArrayID|State|Reason|StartTime|NodeList|RestartCnt|exit_code|."""
        self.answers("squeue", "".join(f"{row}\n" for row in rows))

    def calls(self, program: str = "") -> list[str]:
        path = self.folder / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(program)]

    def scripts(self) -> list[str]:
        """The scripts that were submitted, in order."""
        return [Path(line.split()[-1]).read_text() for line in self.calls("sbatch")]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedSlurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return ScriptedSlurm(folder)


class MemoryExecutor:
    """Keeps what it was given; `refuse_after` submissions it refuses."""

    kind = "memory"

    def __init__(self, *, waits: bool = True, refuse_after: int = 1000) -> None:
        self.name, self.waits_for_jobs, self.refuse_after = "memory", waits, refuse_after
        self.options: Mapping[str, Any] = {"max_requeues": 3}
        self.needs: list[Needs | None] = []
        self.calls: list[int] = []  # how many jobs each submission had
        self.submitted: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []  # id, arguments, after
        self.canceled: list[str] = []
        self.told: dict[str, JobState] = {}
        self.asked: list[list[str]] = []

    def device(self, asked: str) -> str:
        return "cpu"

    def devices(self, asked: str, device: str) -> str:
        if asked == "4":
            raise UsageError("no job gets four", where="memory", code="executor-device")
        return asked

    def threads(self, asked: int, processes: int = 1) -> int:
        return asked or 1

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:
        if len(self.submitted) >= self.refuse_after:
            raise UsageError("no more jobs", where="memory", code="executor-refused")
        self.calls.append(len(jobs))
        answers = []
        for job in jobs:
            answers.append(SubmittedJob(str(len(self.submitted) + 1)))
            self.needs.append(job.needs)
            self.submitted.append((answers[-1].id, job.arguments, tuple(after)))
        return answers

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        self.asked.append(list(ids))
        return {job: self.told[job] for job in ids if job in self.told}

    def cancel(self, ids: Sequence[str]) -> None:
        self.canceled += ids
