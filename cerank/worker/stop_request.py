"""A request to stop, from a signal or from the run's stop file; the worker checks it between steps."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

from cerank.errors import ExitCode

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # Slurm warns by USR1 or USR2
_CHECK_SECONDS = 0.5  # seconds between checks of the file


class StopFlag:
    """Whether somebody asked this worker to stop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signal = 0
        self._is_requested = False
        self._own_reason = ""
        self._last_check = 0.0

    def install(self) -> None:
        """Handle the signals that ask to stop. A second SIGINT ends the process at once; its last checkpoint stays."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            os._exit(ExitCode.INTERRUPTED)
        self._signal = number

    def request(self, reason: str) -> None:
        """Ask to stop from within: what the run needs has come to a cap."""
        self._own_reason = reason

    @property
    def reason(self) -> str:
        """What asked, in a word or two; "" where nothing did."""
        if self._signal:
            return signal.Signals(self._signal).name
        if self._own_reason:
            return self._own_reason
        now = time.monotonic()
        if now - self._last_check >= _CHECK_SECONDS:
            self._last_check = now
            self._is_requested = self._is_requested or self._file.exists()
        return "a stop request" if self._is_requested else ""
