"""Progress of long work as lines on stderr, where no bar can be drawn."""

from __future__ import annotations

import time

from cerank.cli.output import info


class ProgressMessages:
    """Print a message about long work at most every `seconds`."""

    def __init__(self, seconds: float = 10.0, *, is_first_printed: bool = False) -> None:
        self._pause = seconds
        self._start = time.monotonic()
        self._last = float("-inf") if is_first_printed else self._start

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._start

    def show(self, text: str) -> None:
        """Print the message, unless another one was printed a short while ago."""
        now = time.monotonic()
        if now - self._last >= self._pause:
            self._last = now
            info(text)

    def show_bytes(self, what: str, done: int, total: int) -> None:
        """Print how many bytes are done; `total` is 0 if it is unknown."""
        of_total = f" of {total / 1e6:,.0f} MB ({done / total:.0%})" if total else " MB"
        self.show(f"{what}: {done / 1e6:,.0f}{of_total}")
