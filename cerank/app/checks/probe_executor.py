"""What a run would meet on an executor's machines, found out by a job of some seconds that looks around there."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cerank
from cerank.app.checks.doctor import LEAST, Finding
from cerank.errors import CerankError
from cerank.executors.interface import Job, JobExecutor, SubmittedJob
from cerank.executors.on_node import computing_code
from cerank.executors.polling import LEAST_SECONDS
from cerank.executors.probe import ProbeAnswer
from cerank.files import disk, json_records
from cerank.models.bases import BASES, is_on_this_machine
from cerank.runs.job_records import JobState
from cerank.runs.layout import JobFolder
from cerank.settings import Settings

PATIENCE = 900.0  # seconds to wait for a job that waits itself
AFTER_END = 20.0  # seconds for which a network file system may hide a file that a node has written
_SKEW = 5.0  # seconds between two clocks that are worth a note


def examine(
    settings: Settings,
    executor: JobExecutor,
    *,
    tell: Callable[[str], object] = str,
    patience: float = PATIENCE,
    poll_seconds: float = 1.0,
) -> list[Finding]:
    """Submit a probe, wait for its answer, and return what it means for runs; the job is canceled if it takes too long.

    Args:
        settings: settings in force; the lab is probed.
        executor: where to look.
        tell: called with what is waited for.
        patience: seconds to wait for the answer.
        poll_seconds: seconds between looks for the answer; the executor is last_question every 10 s.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    folder = JobFolder(settings.lab.resolve()).path / f"probe-{secrets.token_hex(4)}"
    disk.make_folder(folder)
    job = Job(
        name="cerank-doctor", lab=settings.lab.resolve(), module="cerank.executors.probe", arguments=(str(folder),)
    )
    try:
        (submitted,) = executor.submit([job])
        tell(f"{executor.name} job {submitted.id or '(no id)'}")
        answer, state, waited = _answer(
            executor, submitted, folder, tell=tell, patience=patience, poll_seconds=poll_seconds
        )
    except CerankError as error:
        return [Finding("wrong", executor.name, error.what, error.hint)]
    finally:
        disk.remove_tree(folder)
    if answer is None:
        return [_no_answer(executor, submitted, state, waited)]
    return list(_findings(executor, answer, settings))


def _answer(
    executor: JobExecutor,
    submitted: SubmittedJob,
    folder: Path,
    *,
    tell: Callable[[str], object],
    patience: float,
    poll_seconds: float,
) -> tuple[ProbeAnswer | None, JobState | None, float]:
    """Return the probe's answer, or None with the last state of its job; and the seconds that it took."""
    began, last_question = time.monotonic(), -LEAST_SECONDS
    state: JobState | None = None
    ended = 0.0
    try:
        while (waited := time.monotonic() - began) < patience:
            with contextlib.suppress(OSError):
                list(folder.iterdir())  # a network file system looks for new files only when the folder is listed
            answer = json_records.load_if_there(folder / "answer.json", ProbeAnswer)
            if answer is not None:
                return answer, state, waited
            if submitted.id and not ended and time.monotonic() - last_question >= LEAST_SECONDS:
                last_question = time.monotonic()
                state = executor.states([submitted.id]).get(submitted.id)
                if state is not None:
                    tell(f"{executor.name} job {submitted.id}: {state.word} {state.reason}".strip())
                    ended = time.monotonic() if state.phase == "ended" else 0.0
            if ended and time.monotonic() - ended > AFTER_END:
                break
            time.sleep(poll_seconds)
    except BaseException:
        executor.cancel([submitted.id])
        raise
    if state is None or state.is_live:
        executor.cancel([submitted.id])
    return None, state, time.monotonic() - began


def _no_answer(executor: JobExecutor, submitted: SubmittedJob, state: JobState | None, waited: float) -> Finding:
    """Return why there is no answer: the job never ran, or the lab is not the same folder there."""
    if state is not None and state.phase == "ended":
        what = f"job {submitted.id} ended ({state.word} {state.reason}".rstrip() + ") without an answer in the lab"
        hint = f"the node does not see the lab, or cerank does not start there; see {submitted.log}"
        return Finding("wrong", executor.name, what, hint)
    word = f"{state.word} {state.reason}".strip() if state is not None else "unknown to the executor"
    what = f"no answer in {waited:.0f} s; the job is {word}"
    return Finding("wrong", executor.name, what, "try again when the cluster is less busy; the job was canceled")


def _findings(executor: JobExecutor, answer: ProbeAnswer, settings: Settings) -> Iterator[Finding]:
    """Yield what the answer means."""
    where = f"{executor.name}: {answer.host}"
    yield Finding("good", where, f"a job runs and sees the lab {settings.lab}", is_told=True)
    if answer.error:
        yield Finding("wrong", where, f"the lab cannot be written to: {answer.error}", "check its permissions there")
    else:
        text = f"the lab's disk writes {answer.written / 1e6:.0f} MB/s and reads {answer.read / 1e6:.0f} MB/s"
        yield Finding("good", where, text, is_told=True)
        if answer.free < LEAST:
            yield Finding("wrong", where, f"{answer.free / 1e9:.1f} GB free in the lab", "free some space")
    yield from _versions(where, answer)
    yield from _devices(where, executor, answer)
    here = [name for name, base in BASES.items() if is_on_this_machine(base)]
    lacking = [name for name in here if name not in answer.bases]
    if lacking:
        hint = "put the hub's cache (HF_HOME) on the shared disk, or fetch them on the node"
        yield Finding("wrong", where, f"base models are here, but not there: {', '.join(lacking)}", hint)
    else:
        yield Finding("good", where, f"base models there: {', '.join(answer.bases) or 'none, as here'}", is_told=True)
    if abs(answer.skew) > _SKEW:
        text = f"its clock is {abs(answer.skew):.0f} s {'ahead of' if answer.skew > 0 else 'behind'} the file server's"
        yield Finding("note", where, text, "runs do not mind; times in their logs differ")


def _versions(where: str, answer: ProbeAnswer) -> Iterator[Finding]:
    own = computing_code()
    if (answer.cerank, answer.code) != (cerank.__version__, own):
        text = f"cerank {answer.cerank} (code {answer.code}) there, {cerank.__version__} (code {own}) here"
        yield Finding("wrong", where, text, "install the same; a run is refused otherwise")
    else:
        text = f"Python {answer.python}, cerank {answer.cerank}, the code as here"
        yield Finding("good", where, text, is_told=True)
    packages = ", ".join(f"{name} {version}" for name, version in answer.versions.items())
    yield Finding("good", where, f"{packages}; {answer.cores} cores of {answer.processor}", is_told=True)


def _devices(where: str, executor: JobExecutor, answer: ProbeAnswer) -> Iterator[Finding]:
    device = executor.device("auto")
    built = f"CUDA {answer.torch_cuda}" if answer.torch_cuda else "the CPU only"
    if device == "cpu":
        yield Finding("good", where, f"jobs compute on the CPU; torch is built for {built}", is_told=True)
    elif not answer.devices:
        yield Finding("wrong", where, "the job sees no GPU", "check `gpus` and `partition` of the executor")
    elif not answer.gpu_works:
        text = f"torch (built for {built}) does not compute on the GPU, driver {answer.driver}: {answer.gpu_error}"
        yield Finding("wrong", where, text, "install a torch that the driver supports")
    else:
        text = f"{', '.join(answer.devices)}; torch for {built}, driver {answer.driver}: they compute"
        yield Finding("good", where, text, is_told=True)
