"""Signs of life of the processes of one run, and the error of the one that failed first.

Each process counts up a number in the store that torchrun keeps for all of them; whoever sees that another's number
stands still ends itself, and torchrun then ends the rest. A process that dies is noticed by torchrun at once, and one
that fails leaves its error here, so that the run can say what was wrong with which of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType

import msgspec
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

from cerank.errors import CerankError, RunFailedError

BEAT = 2.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one, after which a process counts as hanging; long reads hold its threads up for some
SHORT_SILENCE = 6.0  # the same for the first process, once this one was asked to end
_PATIENCE = 5.0  # seconds that the error of another process may take to arrive after the connection to it broke

_FIRST_ERROR = "first error"


class RankError(msgspec.Struct, frozen=True):
    """The error of a process other than the first."""

    rank: int
    what: str
    where: str = ""
    hint: str = ""


class LostRankError(RunFailedError):
    """A process of the run is gone or does not answer, and left no error."""


class RankSigns:
    """Shows that this process lives, and looks at the others.

    Args:
        number: of this process, from 0.
        count: processes of the run.
        on_silence: called once, by a thread, with the number of a process that shows no sign of life any more.
    """

    def __init__(self, number: int, count: int, on_silence: Callable[[int], None]) -> None:
        self._number, self._count, self._on_silence = number, count, on_silence
        # a connection of its own: that of the group is taken while it waits for an order
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30))
        self._over = threading.Event()
        self._is_asked_to_end = False
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)

    def start(self) -> None:
        """Start the thread; a process other than the first no longer heeds signals: the first decides when all stop.

        A cluster asks all of them to stop at once, and to save a checkpoint the first one needs the others.
        """
        if self._number:
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, self._on_term)
        self._thread.start()

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._is_asked_to_end = True  # torchrun asks so, too, when another process has failed

    def stop(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join()

    def leave_error(self, error: Exception) -> None:
        """Leave the error of this process for the first one, unless another failed before."""
        if isinstance(error, CerankError):
            record = RankError(self._number, error.what, error.where, error.hint)
        else:
            record = RankError(
                self._number, f"{type(error).__name__}: {error}"[:2000], hint="log.txt has the traceback"
            )
        with contextlib.suppress(DistError, RuntimeError):  # the store is gone, and so is whoever would read it
            self._store.compare_set(_FIRST_ERROR, "", msgspec.json.encode(record).decode())

    def first_error(self, patience: float = _PATIENCE) -> RankError | None:
        """Return the error that another process left; None if there is none after `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                if self._store.check([_FIRST_ERROR]):
                    return msgspec.json.decode(self._store.get(_FIRST_ERROR), type=RankError)
            except (DistError, RuntimeError):
                return None
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)

    def _run(self) -> None:
        seen = dict.fromkeys(set(range(self._count)) - {self._number}, (b"", time.monotonic()))
        beats = 0
        while not self._over.wait(BEAT):
            try:
                beats += 1
                self._store.set(_key(self._number), str(beats))
                now = time.monotonic()
                for rank, (before, since) in seen.items():
                    current = self._store.get(_key(rank)) if self._store.check([_key(rank)]) else b""
                    seen[rank] = (current, now if current != before else since)
            except (DistError, RuntimeError):
                self._on_silence(-1)  # torchrun, which keeps the store, is gone
                return
            limits = {0: SHORT_SILENCE} if self._is_asked_to_end else {}
            silent = [rank for rank, (_, since) in seen.items() if now - since > limits.get(rank, SILENCE)]
            if silent:
                self._on_silence(silent[0])
                return


def _key(rank: int) -> str:
    return f"alive {rank}"
