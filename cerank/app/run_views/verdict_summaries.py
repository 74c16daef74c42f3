"""The verdict of each finished run in a sentence, computed once in a process of its own and kept in the cache.

Invariant: a summary belongs to the run's files as they were when it was computed; where they changed since, it counts
as absent. Reading one loads no statistics library, so that lists of runs may show it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import CerankError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.runs import overlapped_reads
from cerank.runs.layout import RunFolder, runs_folder

if TYPE_CHECKING:
    from cerank.evaluation.answers import Answer

_PATIENCE = 600.0  # seconds that the process may take
_LOOK = 0.2  # seconds between two looks at whether it is still wanted
AT_ONCE = 20  # runs for which one process is started


class VerdictSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of a finished run in a word and a sentence, kept in the cache."""

    verdict: (
        str  # on its last stage: whether it was worth it, where that was declared; else "better", "equivalent", ...
    )
    sentence: str  # the question with its answer
    stamp: str  # sizes and times of the files that it was computed from


def _stamp(folder: RunFolder) -> str:
    """Return what changes when the run's results do: sizes and times of its measures."""
    try:
        files = sorted((folder.path / "measures").rglob("*.jsonl"))
        return " ".join(f"{file.stat().st_size}.{file.stat().st_mtime_ns}" for file in files)
    except OSError:
        return ""


def _file(cache: Path, folder: RunFolder) -> Path:
    return cache / "verdicts" / f"{folder.name}.json"


def load_summary(cache: Path, folder: RunFolder) -> VerdictSummary | None:
    """Return the summary of a run; None where there is none for its files as they are."""
    try:
        summary = json_records.load_if_there(_file(cache, folder), VerdictSummary)
    except DamagedError:
        return None
    return summary if summary is not None and summary.stamp == _stamp(folder) else None


def change_times(cache: Path) -> dict[str, int]:
    """Return run -> the time in ns at which its summary was written."""
    try:
        with os.scandir(cache / "verdicts") as entries:
            files = [entry for entry in entries if entry.name.endswith(".json")]
        times = overlapped_reads.read_all(lambda entry: entry.stat().st_mtime_ns, files)
    except OSError:
        return {}
    return {entry.name.removesuffix(".json"): time for entry, time in zip(files, times, strict=True)}


def save_summary(cache: Path, folder: RunFolder) -> VerdictSummary | None:
    """Compute the summary of a run and save it; None where the run has no verdict."""
    from cerank.app.comparison import run_answer

    stamp = _stamp(folder)
    try:
        answers = run_answer.of_run(folder).answers
    except CerankError:
        return None
    if not answers or not stamp:
        return None
    main = [answer for answer in answers if answer.is_main] or list(answers)
    of_score = [answer for answer in main if _place(answer) == _place(main[0])]  # lists show the score of this place
    last = of_score[-1]
    summary = VerdictSummary(verdict=last.worth or last.verdict, sentence=last.with_question, stamp=stamp)
    with contextlib.suppress(CerankError, OSError):
        disk.make_folder(_file(cache, folder).parent)
        json_records.save(_file(cache, folder), summary)
    return summary


def _place(answer: Answer) -> tuple[str, str, str]:
    """Return what an answer is about: test dataset, first stage and measure."""
    return answer.dataset, answer.first_stage, answer.measure


def compute_in_process(
    cache: Path, folders: Sequence[RunFolder], is_canceled: Callable[[], bool] = lambda: False
) -> None:
    """Compute the summaries of runs in a process of low priority, and wait for it.

    Args:
        cache: where the summaries are kept.
        folders: runs of one lab.
        is_canceled: asked a few times a second; True ends the process, and what it has not computed stays absent.
    """
    if not folders:
        return
    names = [folder.name for folder in folders]
    command = [sys.executable, "-P", "-m", "cerank.app.run_views.verdict_summaries", str(folders[0].lab), str(cache)]
    deadline = time.monotonic() + _PATIENCE
    with (
        contextlib.suppress(OSError),
        subprocess.Popen(
            [*command, *names], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
    ):
        while process.poll() is None:
            if is_canceled() or time.monotonic() > deadline:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)


if __name__ == "__main__":
    os.nice(10)
    for name in sys.argv[3:]:
        save_summary(Path(sys.argv[2]), RunFolder(runs_folder(Path(sys.argv[1])) / name))
