"""How long the dashboard holds up its own loop: 1,000 runs in the list, a million readings in a run.

`python -m tests.benchmarks.dashboard` prints figures; nothing of a lab is touched. A frame is what the event loop
does without yielding: a probe asks to be woken every 2 ms, and counts how late it comes. Another thread that holds
Python's lock makes it late, too, which is as it should be.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from textual.pilot import Pilot

from cerank.tui.app import CerankApp
from tests.tui.labs import LabFolder

RUNS, READINGS = 1000, 1_000_000
PROBE = 0.002  # seconds


def a_lab(path: Path, count: int) -> LabFolder:
    """A lab of finished, failed, waiting and running runs."""
    (path / "runs").mkdir(parents=True)
    lab = LabFolder(path)
    for place in range(count):
        made = lab.run(f"run {place:03d}", seed=place)
        made.path.rename(made.path.with_name(f"2026-11-23-10{place:04d}-two-stages-minilm-{place:04x}"))
        made = type(made)(made.path.with_name(f"2026-11-23-10{place:04d}-two-stages-minilm-{place:04x}"))
        kind = place % 10
        if kind < 7:
            lab.finished(lab.started(made, 20), after=0.3 + place / 2000)
        elif kind < 8:
            lab.failed(lab.started(made, 20))
        elif place < 10:
            lab.running(lab.started(made, 20))
    return lab


def many_readings(path: Path, count: int, start: int = 0) -> None:
    """Appends rows to a journal, without waiting for the disk."""
    with path.open("a") as file:
        for step in range(start + 1, start + count + 1):
            row = {"type": "step", "stage": 0, "step": step, "loss": 0.3 + 1 / step**0.3 + (step * 7919 % 97) / 500}
            row |= {"learning_rate": 1e-5, "grad_norm": 1.5, "groups": 4, "pairs": 32, "skipped": 0, "seconds": 0.1}
            file.write(json.dumps(row | {"attempt": 1}) + "\n")


class Probe:
    """Counts how late the loop wakes it."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def _watch(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(PROBE)
            self.late.append(time.perf_counter() - asked - PROBE)

    async def __aenter__(self) -> Probe:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()

    def told(self, what: str) -> str:
        """The longest wait, and how many were over 50 and 100 ms."""
        late = sorted(self.late) or [0.0]
        over = [sum(one > limit for one in late) for limit in (0.05, 0.1)]
        share = late[int(len(late) * 0.99)]
        figures = f"worst {1000 * late[-1]:6.1f} ms   p99 {1000 * share:5.1f}"
        return f"{what:48} {figures}   >50 ms {over[0]}   >100 ms {over[1]}"


async def main(runs: int, readings: int) -> None:
    """Measures, and prints."""
    with tempfile.TemporaryDirectory() as where:
        os.environ["HOME"] = where
        lab = a_lab(Path(where) / "lab", runs)
        app = CerankApp(lab.lab, poll_seconds=1.0)
        async with app.run_test(size=(120, 36)) as pilot:
            async with Probe() as probe:
                begin, cpu = time.perf_counter(), time.process_time()
                while len(app.entries) < runs:
                    await asyncio.sleep(0.02)
                await pilot.pause()
                first, cpu = time.perf_counter() - begin, time.process_time() - cpu
                await asyncio.sleep(1.5)
            print(probe.told(f"opening a list of {runs} runs ({first:.1f} s, {cpu:.2f} s of CPU)"))
            await keys(pilot)
            async with Probe() as probe:
                for _ in range(40):
                    await pilot.press("down")
                    await asyncio.sleep(0.01)
                await pilot.press("pagedown", "pagedown", "G")
                await asyncio.sleep(0.3)
            print(probe.told("40 rows down, pages, the end"))
            async with Probe() as probe:
                for key in ("o", "o", "o", "O", "slash", *"run 1", "enter", "escape"):
                    await pilot.press(key)
                    await asyncio.sleep(0.05)
            print(probe.told("sorting and filtering as one types"))
            await idle(app, "the list, nothing changes, one run live")
            entry = app.entries[3]
            many_readings(entry.folder.readings, readings)
            await pilot.press("g")
            app.screen.query_one("#runs").highlight(entry.name)  # type: ignore[attr-defined]
            async with Probe() as probe:
                begin = time.perf_counter()
                await pilot.press("enter")
                while "CurvesPane" not in str(app.focused) or _drawn(app) < readings:
                    await asyncio.sleep(0.05)
                took = time.perf_counter() - begin
                await asyncio.sleep(0.5)
            print(probe.told(f"opening {readings:,} readings ({took:.1f} s to read)"))
            async with Probe() as probe:
                for key in "+=--0LpPL][":
                    await pilot.press(_KEYS.get(key, key))
                    await asyncio.sleep(0.1)
                await asyncio.sleep(1.0)
            print(probe.told("zoom, log, other curves, smoothing"))
        lab.close()


async def keys(pilot: Pilot[str]) -> None:
    """Prints how much CPU a key takes until everything that it changes is drawn, and how much memory was used."""
    for key in ("j", "G", "g", "pagedown", "o", "O", "z", "z", "space", "slash", "1", "escape"):
        before = time.process_time()
        await pilot.press(key)
        await pilot.pause()
        print(f"{key:>9}: {1000 * (time.process_time() - before):.0f} ms of CPU")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


_KEYS = {"+": "plus", "=": "equals_sign", "-": "minus", "]": "right_square_bracket", "[": "left_square_bracket"}


def _drawn(app: CerankApp) -> int:
    lines = app.screen.query_one("#main").frame.lines  # type: ignore[attr-defined]
    return max((len(line.steps) for line in lines), default=0)


async def idle(app: CerankApp, what: str, seconds: float = 10.0) -> None:
    """Prints what share of a core the dashboard takes while nothing is done."""
    await asyncio.sleep(2)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"idle: {what}: {100 * used / seconds:.2f} % of a core, {len(app.entries)} runs")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    asyncio.run(main(*(given or (RUNS, READINGS))))
