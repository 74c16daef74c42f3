"""Contenders in processes of their own, asked one after another: what is said to them, and how they are heard.

Invariant: whoever is not asked waits for its next line and computes nothing; one that dies or stalls is lost with a
reason, is never asked again, and holds nobody up.
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

from cerank.models.bases import Pooling

# -P as for a worker: the folder it is started in holds no module of ours
COMMAND = (sys.executable, "-P", "-m", "cerank.bench.bench_worker")
READY_WITHIN = 300.0  # seconds that a contender has for its imports, its model and its first pairs
_ENDING = 5.0  # seconds that a contender has to end by itself
_TOLD = 200  # characters of a dying contender's last words


Task = Literal["score", "train", "peak", "figure"]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a contender gets ready for; it may hold several, by name."""

    name: str
    kind: str  # "module:class" of what does it
    task: Task
    is_own: bool = False  # whether the process is set up as cerank's worker is; else threads are all that is set
    folder: str = ""  # of the checkpoint
    pooling: Pooling = "classifier"
    sample: str = ""  # a file of a `Sample`, as JSON
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    steps: int = 4  # training: steps that are timed in a turn
    group_size: int = 8
    groups: int = 4  # a step


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One line to a contender: what to hold ready, or what to do now."""

    ready: Work | None = None
    go: str = ""  # the name of a work that is held
    sample: str = ""  # to be scored in place of the work's own
    scores: str = ""  # a file for what it scored, as a JSON list


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line back; what the task does not measure is 0."""

    pairs: int = 0
    seconds: float = 0.0
    memory: int = 0  # bytes: the most that the process has held so far; 0 where the system does not tell
    data_seconds: float = 0.0  # of `seconds` (training): until the pairs of a step stand as tensors
    value: float = 0.0  # task "figure": it; task "peak": the best product's operations a second
    sustained: float = 0.0  # task "peak": of the best shape's products, one after another

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return self.pairs / self.seconds


def peers_environment(given: Mapping[str, str], threads: int) -> dict[str, str]:
    """What others' programs see: the person's own environment and as many threads, and no call to a network."""
    return {**given, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


class Contender:
    """One contender's process; used as a context, at the end of which it is gone.

    Args:
        name: it goes by in tables.
        environment: that it sees.
        room: a folder for what it says on the side.
        command: that starts it; what it starts speaks this module's lines on its standard input and output.
        folder: it is started in.
    """

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        room: Path,
        command: Sequence[str] = COMMAND,
        folder: Path | None = None,
    ) -> None:
        self.name, self.lost = name, ""
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        with NamedTemporaryFile(dir=room, suffix=".log", delete=False) as log:
            self._said = Path(log.name)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                cwd=folder or room,
                text=True,
                encoding="utf8",
                errors="replace",
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(0.0 if error is not None else _ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ready(self, work: Work, within: float = READY_WITHIN) -> Answer | None:
        """Has it hold a work ready, warm; None where it is lost."""
        return self._ask(Ask(ready=work), f"did not get ready in {within:.0f} s", within)

    def go(self, work: str, within: float, *, sample: str = "", scores: str = "") -> Answer | None:
        """Has it do a work once; None where it is lost."""
        return self._ask(Ask(go=work, sample=sample, scores=scores), f"took more than {within:.0f} s", within)

    def _ask(self, ask: Ask, late: str, within: float) -> Answer | None:
        if self.lost:
            return None
        try:
            assert self._process.stdin is not None  # it is a pipe  # noqa: S101
            self._process.stdin.write(msgspec.json.encode(ask).decode() + "\n")
            self._process.stdin.flush()
            line = self._heard.get(timeout=within)
        except queue.Empty:
            self._process.kill()
            self.lost = late
            return None
        except OSError:  # its end of the pipe is closed
            line = ""
        try:
            return msgspec.json.decode(line, type=Answer)
        except msgspec.DecodeError:
            self.lost = self._end(line)
            return None

    def _listen(self) -> None:
        assert self._process.stdout is not None  # it is a pipe  # noqa: S101
        for line in self._process.stdout:
            self._heard.put(line)
        self._heard.put("")

    def _end(self, line: str) -> str:
        """Why there was no answer: how it ended and its last words."""
        if line:
            self._process.kill()
            return f"answered nonsense: {line.strip()[:_TOLD]}"
        try:
            code = self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:  # it closed its output and goes on
            self._process.kill()
            code = self._process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        said = [one.strip() for one in self._said.read_text("utf8", errors="replace").splitlines() if one.strip()]
        return f"{how}: {said[-1][:_TOLD]}" if said else how


class Turn(msgspec.Struct, frozen=True):
    """What one asks of a contender in every turn."""

    contender: Contender
    work: str
    sample: str = ""
    scores: str = ""


def take_turns(
    turns: Mapping[str, Turn], repeats: int, within: float, heard: Callable[[str], None] = lambda _: None
) -> dict[str, list[Answer]]:
    """Name -> answers, one a turn; those of one that is lost on the way are fewer.

    Each turn asks all, and begins one further than the turn before, so that a machine that slows down slows all.

    Args:
        turns: who is asked what.
        repeats: turns.
        within: seconds that an answer may take.
        heard: hears who is asked.
    """
    names = list(turns)
    found: dict[str, list[Answer]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turn = turns[name]
            heard(f"turn {number + 1} of {repeats}: {name}")
            answer = turn.contender.go(turn.work, within, sample=turn.sample, scores=turn.scores)
            if answer is not None:
                found[name].append(answer)
    return found


def most_memory() -> int:
    """Bytes: the most that this process has held; 0 where the system does not tell.

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
