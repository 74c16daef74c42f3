"""A real pseudo-terminal with the program in it, and a lab whose every text tries to steer one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from types import TracebackType

from tests.tui.labs import LabFolder

HOSTILE = {
    "osc52": "\x1b]52;c;SEVMTE8=\x07copied",
    "title": "\x1b]0;PWNED\x07\x1b]2;PWNED\x1b\\title",
    "ansi": "\x1b[77;77H\x1b[2J\x1b[31mred\x1bc",
    "c1": "\x9b77;77Hc1\x9d52;c;AAAA\x9c",
    "markup": "[/nope][red]x[/][@click=app.quit()]go[/] \\[ [[",
    "bidi": "abc\u202edef\u2066ghi\u2069\u200f",
    "controls": "nul\x00bel\x07bs\x08cr\rvt\x0bff\x0cdel\x7f\u2028line\u2029par\ufeff",
    "surrogates": "lone \udcff\ud800 half",
    "megabyte": "x" * 1_000_000 + "\x1b[77;77H",
}

_TEXTUALS = re.compile(rb"\x1b\]22;[a-z-]*\x07")  # the pointer's shape, the one OSC that Textual sends here
_LEAKS = {  # what a lab's text could do
    "OSC": rb"\x1b\]",
    "a place of ours": rb"\x1b\[77;77H",
    "reset": rb"\x1bc",
    "an 8-bit control": rb"\xc2[\x80-\x9f]",
    "bidi": rb"\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]",
    "a line separator": rb"\xe2\x80[\xa8\xa9]",
    "NUL, BEL, VT or DEL": rb"[\x00\x07\x0b\x7f]",
    "a lone surrogate": rb"\xed[\xa0-\xbf]",
}


def leaks(output: bytes) -> list[str]:
    """What of a lab's text reached the terminal."""
    left = _TEXTUALS.sub(b"", output)
    return [f"{name} at {found.start()}" for name, pattern in _LEAKS.items() if (found := re.search(pattern, left))]


def hostile_lab(folder: LabFolder, text: str) -> None:
    """A run whose label, recipe, base, tags, log, events, queries, documents and file names are hostile."""
    collection = folder.path.parent / "collection"
    (collection / "qrels").mkdir(parents=True)
    documents = [{"_id": doc, "text": text + doc} for doc in ("d1", "d2", "d3", "d4")]
    queries = [{"_id": query, "text": text + query} for query in ("q1", "q2")]
    for name, rows in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        (collection / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (collection / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t2\nq2\td4\t1\n")
    short = text[:2000]
    name = short.encode("utf-8", "backslashreplace").decode()  # a recipe is TOML, which has no half characters
    plain = short.replace("/", "").replace("\0", "")[:80]
    broken = folder.run("broken")
    folder.damaged(broken)
    broken.path.rename(broken.path.with_name("0" + plain if _is_name(plain) else "0"))
    folder.failed(folder.started(folder.run(name), 3), short)
    made = folder.run(name, name=name, base=name, test=[str(collection)])
    folder.started(made, 5)
    folder.event(made, short, short)
    folder.finished(made)
    made.log.write_bytes(
        text.encode("utf-8", "surrogatepass") + b"\n" + text.encode("utf-16", "surrogatepass") + b"\nend\n"
    )
    made.user_labels.write_text(
        json.dumps({"label": short, "tags": [short]}), encoding="utf-8", errors="surrogateescape"
    )


def _is_name(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


class Terminal:
    """The program in a pseudo-terminal of 120x36; every wait has a deadline."""

    def __init__(
        self, words: list[str], environ: dict[str, str], size: tuple[int, int] = (120, 36), program: str = "cerank"
    ) -> None:
        self._words = words
        self._program = program
        self._environ = environ
        self._size = size
        self.output = b""
        self.code: int | None = None

    def __enter__(self) -> Terminal:
        width, height = self._size
        self.pid, self._descriptor = pty.fork()
        if not self.pid:
            # by the child itself, or on a busy machine the program may start before the window has a size
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests were started by nohup
            keep = {
                key: value
                for key, value in os.environ.items()
                if key not in {"NO_COLOR", "TEXTUAL", "COLUMNS", "LINES"}
            }
            given = {"TERM": "xterm-256color", "COLORTERM": "truecolor", **self._environ}
            os.execve(sys.executable, [sys.executable, "-m", self._program, *self._words], {**keep, **given})
        return self

    def press(self, keys: str) -> None:
        """Types."""
        self._mark = len(self.output)
        os.write(self._descriptor, keys.encode())

    _mark = 0

    def _take(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def look(self) -> None:
        """Reads what is there; a program whose terminal nobody reads stands still in the end."""
        self._take(0.05)

    def until(self, word: str, seconds: float = 600.0) -> None:
        """Reads until the word was written since the last key, then until nothing comes for a moment."""
        deadline = time.monotonic() + seconds
        while word.encode() not in self.plain():
            if time.monotonic() > deadline or not self._take(0.2):
                raise AssertionError(f"no {word!r} in {self.plain()[-2000:]!r}")

    def plain(self) -> bytes:
        return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.output[self._mark :])

    def end(self, seconds: float = 600.0) -> None:
        """Waits until the program has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            is_open = self._take(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return
            if not is_open:
                time.sleep(0.01)
        raise AssertionError("it did not end")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)
