"""Run each implementation in its own subprocess, talk to it by JSON lines, and let them take turns.

Invariant: only one process computes at a time; one that crashes or times out is dropped with a reason, and delays no
other.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Literal

import msgspec

from cerank.files import json_records
from cerank.models.bases import Pooling

# -P, as for a worker: the working directory is not searched for modules
COMMAND = (sys.executable, "-P", "-m", "cerank.bench.bench_worker")
READY_TIMEOUT = 300.0  # seconds for imports, loading the model and its first pairs
_EXIT_TIMEOUT = 5.0  # seconds that a process has to end by itself
_MAX_MESSAGE = 200  # characters of a dying process's last words


TaskKind = Literal["score", "train", "peak", "figure"]


class BenchTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a process prepares for; it may hold several, by name."""

    name: str
    implementation: str  # "module:class"
    task: TaskKind
    is_own: bool = False  # whether to set the process up as cerank's worker is; else only threads are set
    folder: str = ""  # folder of the checkpoint
    pooling: Pooling = "classifier"
    sample: str = ""  # file of a `TextSample`, as JSON
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    steps: int = 4  # training: steps that are timed in a round
    group_size: int = 8
    groups: int = 4  # groups of a step


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a process, one line of JSON: prepare a task, or run it now."""

    prepare: BenchTask | None = None
    run: str = ""  # name of a task that is prepared
    sample: str = ""  # file of a sample to score instead of the task's own
    scores: str = ""  # file for the scores, as a JSON list
    latency: int = 0  # times to score one query with 100 candidates instead, each timed alone


class TaskResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The response of a process, one line of JSON; figures that the task does not measure are 0."""

    pairs: int = 0
    seconds: float = 0.0
    memory: int = 0  # bytes: the most that the process has held so far; 0 where the system does not tell
    gpu_memory: int = 0  # bytes of a GPU: the most that the task has held; 0 on other devices
    joules: float | None = None  # that the GPU used meanwhile; None where nothing tells them
    latencies: tuple[float, ...] = ()  # seconds of each query, where `latency` was asked for
    data_seconds: float = 0.0  # training: seconds of `seconds` until the pairs of a step are tensors
    value: float = 0.0  # task "figure": the figure; task "peak": the best product's operations a second
    sustained: float = 0.0  # task "peak": operations a second of the best shape's products, one after another

    @property
    def rate(self) -> float:
        """Return pairs a second."""
        return self.pairs / self.seconds


def baseline_environment(environ: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of other libraries: the user's own, as many threads, and no call to a network."""
    return {**environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


class BenchProcess:
    """The process of one implementation; a context at the end of which the process is gone.

    Args:
        name: name of the implementation in tables and errors.
        environment: environment variables of the process; it inherits no others.
        log_folder: folder for the file with the standard error of the process.
        command: command that starts it; it reads and writes this module's lines.
        folder: working directory of the process; by default the folder of logs.
    """

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        log_folder: Path,
        command: Sequence[str] = COMMAND,
        folder: Path | None = None,
    ) -> None:
        self.name, self.failure = name, ""
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with NamedTemporaryFile(dir=log_folder, suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                cwd=folder or log_folder,
                text=True,
                encoding="utf8",
                errors="replace",
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> BenchProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        try:
            self.process.wait(0.0 if error is not None else _EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def prepare(self, task: BenchTask, within: float = READY_TIMEOUT) -> TaskResponse | None:
        """Let it prepare a task; return None if it failed."""
        return self._ask(TaskRequest(prepare=task), f"did not get ready in {within:.0f} s", within)

    def run(
        self, task: str, within: float, *, sample: str = "", scores: str = "", latency: int = 0
    ) -> TaskResponse | None:
        """Let it run a task once; return None if it failed."""
        request = TaskRequest(run=task, sample=sample, scores=scores, latency=latency)
        return self._ask(request, f"took more than {within:.0f} s", within)

    def _ask(self, request: TaskRequest, late: str, within: float) -> TaskResponse | None:
        if self.failure:
            return None
        try:
            assert self.process.stdin is not None  # it is a pipe  # noqa: S101
            self.process.stdin.write(msgspec.json.encode(request).decode() + "\n")
            self.process.stdin.flush()
            line = self._lines.get(timeout=within)
        except queue.Empty:
            self.process.kill()
            self.failure = late
            return None
        except OSError:  # its end of the pipe is closed
            line = ""
        try:
            return json_records.decode(line, TaskResponse)
        except msgspec.DecodeError:
            self.failure = self._end(line)
            return None

    def _listen(self) -> None:
        assert self.process.stdout is not None  # it is a pipe  # noqa: S101
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _end(self, line: str) -> str:
        """Return why there was no answer: how the process ended, and its last words."""
        if line:
            self.process.kill()
            return f"sent an invalid answer: {line.strip()[:_MAX_MESSAGE]}"
        try:
            code = self.process.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:  # it closed its output and keeps running
            self.process.kill()
            code = self.process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        lines = [line.strip() for line in self._log.read_text("utf8", errors="replace").splitlines() if line.strip()]
        return f"{how}: {lines[-1][:_MAX_MESSAGE]}" if lines else how


class RoundEntry(msgspec.Struct, frozen=True):
    """A task that a process runs in every round."""

    process: BenchProcess
    task: str
    sample: str = ""
    scores: str = ""
    latency: int = 0


def run_interleaved(
    entries: Mapping[str, RoundEntry], repeats: int, within: float, progress: Callable[[str], None] = lambda _: None
) -> dict[str, list[TaskResponse]]:
    """Return name -> responses, one a round; a process that fails on the way has fewer.

    Each round runs all of them, and begins with the next one, so that a machine that slows down slows all alike.

    Args:
        entries: name -> the task to run.
        repeats: number of rounds; each implementation runs once in a round.
        within: seconds that a response may take.
        progress: called with the name of each process before it runs.
    """
    names = list(entries)
    responses: dict[str, list[TaskResponse]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            entry = entries[name]
            progress(f"round {number + 1} of {repeats}: {name}")
            response = entry.process.run(entry.task, within, sample=entry.sample, scores=entry.scores)
            if response is not None:
                responses[name].append(response)
    return responses


def peak_memory() -> int:
    """Return the largest memory of this process so far in bytes; 0 where the system does not tell.

    Not getrusage's on Linux, which a child inherits from who started it.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="utf8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0
