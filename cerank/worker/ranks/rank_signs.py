"""Signs of life of the processes of one run, and the error of the one that failed first.

Each process counts up a number in the store that torchrun keeps for all of them; whoever sees that another's number
stands still ends itself, and torchrun then ends the rest. A process that dies is noticed by torchrun at once, and one
that fails leaves its error here, so that the run can say what was wrong with which of them.

A process whose main thread stands still while the others wait for it in an exchange notices that itself and fails. So
do all of them where an exchange that all have entered does not end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import FrameType

import msgspec
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

from cerank.errors import CerankError, RunFailedError
from cerank.files import json_records
from cerank.worker.ranks.main_thread import MainThread

BEAT = 2.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one, after which a process counts as hanging; long reads hold its threads up for some
SHORT_SILENCE = 6.0  # the same for the first process, once this one was asked to end
STANDSTILL = 45.0  # seconds without work or exchange after which a main thread that others wait for counts as stuck
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


class RankSign(msgspec.Struct, frozen=True):
    """What a process shows the others every few seconds."""

    count: int  # of signs so far
    exchanges: int = 0  # that its main thread has entered
    is_waiting: bool = False  # whether it is in one
    is_still: bool = False  # whether nothing has been done for that thread since long


class Fault(msgspec.Struct, frozen=True):
    """Why a process ends itself."""

    what: str
    where: str  # which process is at fault
    log: str = ""  # for log.txt alone
    is_own: bool = False  # whether it is this process that is at fault


class RankSigns:
    """Shows that this process lives and works, and looks at the others.

    Args:
        number: of this process, from 0.
        count: processes of the run.
        on_fault: called once, by a thread, where this process has to end.
        exchange: returns how many exchanges the main thread has entered, and whether it is in one.
        main_thread: watches the main thread.
        waits_busily: whether waiting in an exchange uses the processor, as it does for a GPU.
    """

    def __init__(
        self,
        number: int,
        count: int,
        on_fault: Callable[[Fault], None],
        exchange: Callable[[], tuple[int, bool]],
        main_thread: MainThread,
        *,
        waits_busily: bool = False,
    ) -> None:
        self._number, self._count, self._on_fault = number, count, on_fault
        self._exchange, self._main_thread, self._waits_busily = exchange, main_thread, waits_busily
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
                    return json_records.decode(self._store.get(_FIRST_ERROR), RankError)
            except (DistError, RuntimeError):
                return None
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)

    def _run(self) -> None:
        others = {rank: _Seen() for rank in range(self._count) if rank != self._number}
        own = _Seen()
        count, looked = 0, time.monotonic()
        while not self._over.wait(BEAT):
            # a machine that sleeps, or a cluster that suspends all processes, makes nobody silent
            passed, looked = min(time.monotonic() - looked, 2 * BEAT), time.monotonic()
            still = self._main_thread.seconds_still(passed)
            try:
                count += 1
                entered, is_waiting = self._exchange()
                is_still = still >= STANDSTILL or (is_waiting and self._waits_busily)
                mine = RankSign(count, entered, is_waiting, is_still)
                self._store.set(_key(self._number), msgspec.json.encode(mine).decode())
                own.look(passed, mine)
                for rank, seen in others.items():
                    has_sign = self._store.check([_key(rank)])
                    seen.look(passed, json_records.decode(self._store.get(_key(rank)), RankSign) if has_sign else None)
            except (DistError, RuntimeError):
                self._on_fault(Fault("torchrun, which started the processes, is gone", "torchrun"))
                return
            limits = {0: SHORT_SILENCE} if self._is_asked_to_end else {}
            silent = [rank for rank, seen in others.items() if seen.silent > limits.get(rank, SILENCE)]
            if silent:
                self._on_fault(Fault(f"rank {silent[0]} shows no sign of life", f"rank {silent[0]}"))
                return
            if (fault := self._fault_of_main_thread(own, list(others.values()))) is not None:
                if fault.is_own:
                    hint = "log.txt has all its calls; `cerank resume` goes on from the last checkpoint"
                    self.leave_error(RunFailedError(fault.what, hint=hint))
                self._on_fault(fault)
                return

    def _fault_of_main_thread(self, own: _Seen, others: Sequence[_Seen]) -> Fault | None:
        """Return what is wrong if nothing will ever go on: this main thread is stuck, or an exchange of all is."""
        waiting = [seen for seen in others if seen.waits >= STANDSTILL]
        if own.sign.is_still and not own.sign.is_waiting and waiting:
            what = f"the main thread has stood still for {STANDSTILL:.0f} s ({self._main_thread.place()})"
            stack = self._main_thread.stack()
            return Fault(f"{what}, and the others wait for it", f"rank {self._number}", log=stack, is_own=True)
        if own.waits >= STANDSTILL and all(seen.sign.is_still for seen in (own, *others)) and waiting == others:
            what = f"all processes have waited for each other for {STANDSTILL:.0f} s ({self._main_thread.place()})"
            return Fault(what, "all ranks", log=self._main_thread.stack())
        return None


class _Seen:
    """The newest sign of a process, and for how many seconds it has said the same.

    Attributes:
        sign: the sign.
        silent: seconds without a new one.
        waits: seconds in the same exchange; 0 where it is in none.
    """

    def __init__(self) -> None:
        self.sign = RankSign(0)
        self.silent = self.waits = 0.0

    def look(self, passed: float, sign: RankSign | None) -> None:
        """Take the sign as it is now, `passed` seconds after the last look; None where there is none yet."""
        before, self.sign = self.sign, sign or self.sign
        is_same = self.sign.is_waiting and before.is_waiting and self.sign.exchanges == before.exchanges
        self.waits = self.waits + passed if is_same else 0.0
        self.silent = self.silent + passed if self.sign.count == before.count else 0.0


def _key(rank: int) -> str:
    return f"alive {rank}"
