"""The program in a real tmux, on a server of its own: keys go in, what stands on the screen comes out.

Invariant: every wait has a deadline, and a server that a test started is gone when the test ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

LEFT_OUT = {"NO_COLOR", "TMUX", "TMUX_PANE", "TEXTUAL", "COLUMNS", "LINES"}


def is_here() -> bool:
    """Whether there is a tmux to test in."""
    return shutil.which("tmux") is not None


class Tmux:
    """A tmux server with one window, in which the dashboard runs.

    Args:
        environ: what the program finds in its environment besides this process's own.
        frames: where `keep` puts what stands on the screen, with its colors; None keeps nothing.
    """

    def __init__(
        self, environ: Mapping[str, str], cwd: Path, size: tuple[int, int] = (120, 36), frames: Path | None = None
    ) -> None:
        self._socket = f"cerank-test-{uuid.uuid4().hex[:12]}"
        kept = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
        self._environ = {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environ}
        self._cwd, self._size, self._frames = cwd, size, frames

    def __enter__(self) -> Tmux:
        width, height = self._size
        program = shlex.join([sys.executable, "-m", "cerank", "tui"])
        # the server's own file of options might bind keys or draw a line
        words = ["-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(self._cwd)]
        self._tmux(*words, f"{program}; echo code $?; exec cat")
        self._tmux("set-option", "-g", "status", "off")
        self._tmux("resize-window", "-x", str(width), "-y", str(height))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def _tmux(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words],
            env=self._environ,
            cwd=self._cwd,
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
        )
        return done.stdout

    @property
    def pid(self) -> int:
        """The dashboard's process; it is the only child of the window's shell."""
        shell = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        children = subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True).stdout.split()
        return int(children[0])

    def kill(self) -> None:
        """Ends the server, as a terminal that is closed does: the program is hung up on."""
        self._tmux("kill-server", check=False)

    def press(self, *keys: str) -> None:
        """Presses keys by tmux's names for them, such as Enter, Escape, Space, Down."""
        for key in keys:
            self._tmux("send-keys", key)
            time.sleep(0.3 if key == "Escape" else 0.02)  # an escape and a letter at once are alt and that letter

    def type(self, text: str) -> None:
        """Types text as it is."""
        self._tmux("send-keys", "-l", text)

    def screen(self) -> str:
        """What stands on the screen, line by line."""
        return self._tmux("capture-pane", "-p")

    def until(self, *words: str, seconds: float = 60.0) -> str:
        """Waits until every word stands on the screen; returns the screen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen = self.screen()
            if all(word in seen for word in words):
                return seen
            time.sleep(0.1)
        raise AssertionError(f"no {words} within {seconds:.0f} s:\n{self.screen()}")

    def keep(self, name: str) -> None:
        """Keeps what stands on the screen, once two looks are the same."""
        if self._frames is None:
            return
        before = ""
        for _ in range(20):
            now = self._tmux("capture-pane", "-e", "-p")
            if now == before:
                break
            before = now
            time.sleep(0.2)
        self._frames.mkdir(parents=True, exist_ok=True)
        (self._frames / f"{name}.ansi").write_text(before, encoding="utf8")
