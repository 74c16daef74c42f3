"""`python -m tests.fault_injection`: every promise tried at length, and tests/fault_injection/TABLE.md written again.

Takes some 20 minutes on two cores. A row that fails says so and the others go on; the exit code is then 1.
`python -m tests.fault_injection --quick` tries each a few times and writes nothing;
`python -m tests.fault_injection NAME ...` tries at length those whose function or tests hold one of the names.
`--lanes 1` tries nothing side by side.
"""

from __future__ import annotations

import argparse
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec

from .promises import PROMISES, Promise
from .warm import ROOT, Warm

TABLE = Path(__file__).with_name("TABLE.md")
LONGEST = 600.0  # seconds that a part may take before it counts as hung


class Found(msgspec.Struct, frozen=True):
    """How often a promise was tried and held, and what was wrong where it did not."""

    tried: int
    held: int
    bad: tuple[str, ...] = ()
    seconds: float = 0.0
    skipped: int = 0

    def plus(self, other: Found) -> Found:
        """Both together."""
        return Found(
            self.tried + other.tried,
            self.held + other.held,
            self.bad + other.bad,
            self.seconds + other.seconds,
            self.skipped + other.skipped,
        )

    @property
    def is_good(self) -> bool:
        """Whether it was tried, and always held."""
        return bool(self.tried) and self.held == self.tried and not self.bad


def tried(warm: Warm, function: str, given: dict[str, Any]) -> dict[str, Any]:
    """One promise tried, in memory where there is a disk of it: the faults are simulated, and fsync costs nothing."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as folder:
        found: dict[str, Any] = warm.call(function, LONGEST, folder=folder, **given)
    return found


def by_function(warm: Warm, promise: Promise, given: dict[str, Any]) -> Found:
    """A part of a promise tried by its function; one that raises was tried once, and did not hold."""
    began = time.monotonic()
    try:
        found = tried(warm, promise.how, given)
    except AssertionError as error:
        return Found(1, 0, (str(error),), time.monotonic() - began)
    return Found(found["tried"], found["held"], tuple(found["bad"]), time.monotonic() - began)


def by_tests(promise: Promise) -> Found:
    """A promise tried by tests; those that skip are counted apart."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", *shlex.split(promise.how), "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=ROOT,
                env=os.environ | promise.environ,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Found(1, 0, (f"{promise.how}: not over after {LONGEST:.0f} s",), LONGEST)
        if not report.exists():
            return Found(1, 0, (done.stdout[-2000:] + done.stderr[-2000:],), time.monotonic() - began)
        cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    told = tuple(f"{case.get('name')}: {_why(case)}" for case in bad)
    count = len(cases) - skipped
    return Found(count * promise.each, (count - len(bad)) * promise.each, told[:5], time.monotonic() - began, skipped)


def _why(case: ElementTree.Element) -> str:
    return next((str(child.get("message"))[:500] for child in case if child.tag in {"failure", "error"}), "")


Job = tuple[int, dict[str, Any]]  # which promise, and a part of its form


class Trial:
    """Tries promises in lanes, those that measure time alone at the end; rows are printed as they are complete."""

    def __init__(self, promises: list[Promise], *, is_quick: bool) -> None:
        self.promises = promises
        self.found: dict[int, Found] = {}
        self._parts: dict[int, int] = {}
        self._is_quick = is_quick
        self._lock = threading.Lock()

    def run(self, lanes: int) -> None:
        """All of them."""
        order = sorted(range(len(self.promises)), key=lambda one: -self.promises[one].seconds)
        for is_alone in (False, True):
            jobs = [job for one in order if self.promises[one].is_alone == is_alone for job in self._jobs(one)]
            self._lanes(jobs, 1 if is_alone else lanes)

    def _jobs(self, number: int) -> list[Job]:
        promise = self.promises[number]
        parts: tuple[dict[str, Any], ...] = promise.long
        if self._is_quick:
            parts = () if promise.quick is None else (promise.quick,)
        self._parts[number] = len(parts)
        return [(number, part) for part in parts]

    def _lanes(self, jobs: list[Job], lanes: int) -> None:
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        threads = [threading.Thread(target=self._lane, args=(waiting,)) for _ in range(min(lanes, len(jobs)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _lane(self, waiting: queue.SimpleQueue[Job]) -> None:
        warm = Warm()
        while True:
            try:
                number, given = waiting.get_nowait()
            except queue.Empty:
                break
            promise = self.promises[number]
            self._add(number, by_tests(promise) if promise.is_tests else by_function(warm, promise, given))
        warm.close()

    def _add(self, number: int, found: Found) -> None:
        with self._lock:
            before = self.found.get(number)
            whole = self.found[number] = before.plus(found) if before else found
            self._parts[number] -= 1
        if not self._parts[number]:
            print(row_of(self.promises[number], whole), f"{whole.seconds:.0f} s", flush=True)
            for text in whole.bad:
                print("   ", text.replace("\n", "\n    "), flush=True)


def row_of(promise: Promise, found: Found) -> str:
    """A row of the table."""
    how = f"pytest {promise.how}" if promise.is_tests else promise.how
    held = f"{found.held}" if found.is_good else f"**{found.held}**"
    more = f" ({found.skipped} skipped here)" if found.skipped else ""
    return f"| {promise.fault} | {promise.promise} | `{how}` | {found.tried}{more} | {held} |"


def table_of(trial: Trial, seconds: float) -> str:
    """TABLE.md."""
    rows = [(one, trial.found[number]) for number, one in enumerate(trial.promises) if number in trial.found]
    lines = [
        "# Faults, tried",
        "",
        "Written by `python -m tests.fault_injection`, "
        f"which took {seconds / 60:.0f} minutes on {os.cpu_count()} cores.",
        "",
        "| Fault | Promise | How tried | Times | Held |",
        "|---|---|---|---:|---:|",
        *(row_of(one, found) for one, found in rows),
    ]
    bad = [(one, text) for one, found in rows if not found.is_good for text in found.bad or ("not tried",)]
    if bad:
        lines += ["", "Not held:", "", *(f"- {one.fault}: {' '.join(text.split())[:300]}" for one, text in bad)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Tries all; the exit code says whether all held."""
    told = argparse.ArgumentParser(prog="python -m tests.fault_injection", description=__doc__)
    told.add_argument("names", nargs="*", help="parts of functions or tests; all without")
    told.add_argument("--quick", action="store_true", help="a few times each")
    told.add_argument("--lanes", type=int, default=2, help="how many are tried side by side")
    given = told.parse_args()
    asked = [one for one in PROMISES if not given.names or any(name in one.how for name in given.names)]
    trial, began = Trial(asked, is_quick=given.quick), time.monotonic()
    trial.run(given.lanes)
    seconds = time.monotonic() - began
    if not (given.quick or given.names):
        TABLE.write_text(table_of(trial, seconds))
    bad = sum(not found.is_good for found in trial.found.values())
    print(f"{len(trial.found)} promises in {seconds:.0f} s, {bad} not held", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
