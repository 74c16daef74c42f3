"""A run file of ten million lines, read while a dashboard is open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.tui.labs import LabFolder
from tests.tui.terminal import Terminal

from .kills import result
from .warm import ROOT

SECONDS, PEAK, FRAME = 60.0, 1500.0, 0.1  # s, MB, s
UP, DOWN = "\x1b[A", "\x1b[B"
_TOLD = re.compile(r"ingested ([\d,]+) rows .* in ([\d.]+) s.*peak memory ([\d,]+) MiB", re.DOTALL)


def ten_million(folder: str, lines: int = 10_000_000) -> dict[str, Any]:
    """Read in time and memory; meanwhile a key in the dashboard is answered within a frame, by the median of many."""
    from tests.benchmarks.ingest import write

    room, bad = Path(folder), []
    path = room / "made.run"
    write(path, lines, "numbers")
    made = LabFolder(room / "lab")
    for number in range(20):
        made.run(f"run {number}")
    command = [sys.executable, "-m", "tests.benchmarks.ingest", "--part", "ingest", str(path), str(room / "cache")]
    frames: list[float] = []
    with Terminal([str(made.path)], {"PYTHONPATH": str(ROOT)}, program="tests.tui.front") as screen:
        screen.until("waiting", 60.0)
        reader = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
        while reader.poll() is None:
            frames.append(_answered(screen, UP if len(frames) % 2 else DOWN))
        screen.press("q")
        screen.end()
    told = _TOLD.search(reader.communicate()[0] or "")
    if reader.returncode or not told:
        return result(1, [f"exit {reader.returncode}"])
    rows, seconds, peak = (float(word.replace(",", "")) for word in told.groups())
    peak *= 1.048576
    if int(rows) != lines or seconds > SECONDS or peak > PEAK:
        bad.append(f"{rows:,.0f} rows in {seconds} s and {peak:.0f} MB")
    middle = sorted(frames)[len(frames) // 2] if frames else 0.0
    if middle > FRAME:
        bad.append(f"the median of {len(frames)} frames took {1000 * middle:.0f} ms")
    print(
        f"{lines:,} lines in {seconds} s, {peak:.0f} MB; frames: median {1000 * middle:.0f} ms, {len(frames)} of them"
    )
    return result(2, bad, seconds=seconds, megabytes=peak, frame=middle)


def _answered(screen: Terminal, key: str) -> float:
    """Seconds from a key to the first bytes that answer it."""
    screen.look()  # what was on its way
    screen.press(key)
    began, size = time.monotonic(), len(screen.output)
    while len(screen.output) == size and time.monotonic() - began < 5:
        screen.look()
    return time.monotonic() - began
