"""Redacts access tokens in everything that libraries print while a worker runs.

Invariant: of text printed through Python (print, warnings, logging, tracebacks) no part is written before the word it
belongs to is whole, so a token that comes in pieces is seen. What a C library writes to the descriptor by itself is
not checked. A log that cannot be written stops nothing.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from cerank.text.safe_text import redacted

_LONGEST = 1 << 14  # characters without a blank that are held back; longer than a token


class _RedactingBuffer(io.RawIOBase):
    """`sys.stdout.buffer` of a guarded stream."""

    def __init__(self, guard: RedactingStream) -> None:
        self._guard = guard
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")  # a character may come in two parts

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]  # anything with a buffer, as io says and typeshed cannot
        self._guard.write(self._decoder.decode(raw))
        return len(raw)

    def flush(self) -> None:
        self._guard.flush()


class RedactingStream(io.TextIOBase):
    """Replaces a stream of this process and redacts what is printed to it.

    Args:
        stream: the real one; what is printed goes to its descriptor, past its buffer.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting = ""
        self._lock = threading.RLock()
        self.buffer = _RedactingBuffer(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute
        """Return the encoding in which the log is written."""
        return "utf-8"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the real stream's descriptor."""
        return self._stream.fileno()

    def reconfigure(self, **_: object) -> None:
        """Do nothing: libraries that prepare a terminal must not change the log."""

    def write(self, text: str) -> int:
        """Accept text and write its complete lines at once."""
        with self._lock:
            self._waiting += text
            self._write_first(max(map(self._waiting.rfind, "\n\r")) + 1)
            if len(self._waiting) > _LONGEST:
                self._write_first(len(self._waiting))
        return len(text)

    def flush(self) -> None:
        """Write all text except a last word that may continue."""
        with self._lock:
            self._write_first(max(map(self._waiting.rfind, " \t\n\r")) + 1)

    def flush_all(self) -> None:
        """Write all text."""
        with self._lock:
            self._write_first(len(self._waiting))

    def _write_first(self, size: int) -> None:
        ready, self._waiting = self._waiting[:size], self._waiting[size:]
        if ready:
            with contextlib.suppress(OSError):  # a full disk: the log is advice
                left = memoryview(redacted(ready).encode("utf-8", "backslashreplace"))
                while left:
                    left = left[os.write(self._stream.fileno(), left) :]


@contextlib.contextmanager
def redact_output() -> Iterator[None]:
    """Redact access tokens in everything printed during the `with` block."""
    real = (sys.stdout, sys.stderr)
    guards = [RedactingStream(stream) for stream in real if stream is not None]  # a closed stream is None
    by_stream = {id(guard._stream): guard for guard in guards}
    sys.stdout, sys.stderr = (by_stream.get(id(stream), stream) for stream in real)
    pairs = [(guard._stream, guard) for guard in guards]
    for old, new in pairs:
        _redirect_logging(old, new)
    try:
        yield
    finally:
        for old, new in pairs:
            new.flush_all()
            _redirect_logging(new, old)
        sys.stdout, sys.stderr = real


def _redirect_logging(before: TextIO | RedactingStream, after: TextIO | RedactingStream) -> None:
    """Point the handlers of existing loggers to another stream; they keep the stream they were made with."""
    logging = sys.modules.get("logging")  # not imported here: a program without it has no logger
    if logging is None:
        return
    for name in ["root", *logging.root.manager.loggerDict]:
        for handler in logging.getLogger(None if name == "root" else name).handlers:
            if vars(handler).get("stream") is before:  # what asks sys for its stream each time needs nothing
                handler.setStream(after)
