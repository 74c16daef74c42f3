"""`python -m tests.faults`: every promise tried at length, and tests/faults/TABLE.md written again.

Takes some 25 minutes on two cores. `python -m tests.faults --quick` tries each a few times and writes nothing;
`python -m tests.faults NAME ...` tries those whose function holds one of the names.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .warm import Warm

TABLE = Path(__file__).with_name("TABLE.md")

# fault, promise, function, long form, quick form
PROMISES: tuple[tuple[str, str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("kill -9 at a random time", "the run ends with the same bits", "kills.random_kills", {"count": 200}, {"count": 6}),
    (
        "kill before each disk operation",
        "the run ends with the same bits",
        "kills.crash_points",
        {"every": 1},
        {"every": 90, "offset": 31},
    ),
    (
        "the same while a stage is taken over from another run",
        "the run ends with the same bits",
        "kills.crash_points",
        {"every": 1, "adopts": True},
        {"every": 70, "offset": 11, "adopts": True},
    ),
    (
        "power cut at a disk operation",
        "opens, and ends with the same bits",
        "power.cuts",
        {"every": 2},
        {"every": 120},
    ),
    ("power cut between two readings", "at most 5 s of readings are lost", "power.lost_seconds", {"rows": 5000}, {}),
    (
        "a file of a finished run damaged",
        "named, marked, mended where it can be; other runs undisturbed",
        "corruption.finished",
        {"count": 272},
        {"count": 24},
    ),
    (
        "a file of a killed run damaged",
        "the same bits, or the loss is said",
        "corruption.unfinished",
        {"count": 200},
        {"count": 5},
    ),
    (
        "disk full, at many levels",
        "fails saying so, goes on with room",
        "disks.full",
        {"levels": 20},
        {"levels": 4},
    ),
    ("read-only disk", "refused with place and hint, nothing begun", "disks.read_only", {}, {}),
    (
        "folder moved, deleted or forbidden while open",
        "a clean end; others go on",
        "disks.lost_folder",
        {"count": 30},
        {"count": 3},
    ),
    (
        "SIGTERM, SIGUSR1, SIGUSR2, SIGINT",
        "exit 75 in 5 s, same bits",
        "signals.pauses",
        {"count": 50},
        {"count": 4},
    ),
    ("SIGINT twice", "ends within 1 s, same bits", "signals.interrupted_twice", {"count": 30}, {"count": 2}),
    ("8 workers start one run at once", "exactly one writes", "races.starters", {"races": 20}, {"races": 2}),
    (
        "the same without file locks",
        "exactly one writes",
        "races.starters",
        {"races": 20, "without_locks": True},
        {"races": 2, "without_locks": True},
    ),
    ("holder killed, its child alive", "the lease is free at once", "races.dead_holders", {"count": 20}, {"count": 2}),
    (
        "the same without file locks",
        "the lease is free at once",
        "races.dead_holders",
        {"count": 20, "without_locks": True},
        {"count": 2, "without_locks": True},
    ),
    ("two removals at once", "gone, nothing left over", "races.removals", {"count": 50}, {"count": 3}),
    ("clock jumps by up to 11 years", "no state flips, no negative age", "races.clocks", {}, {}),
    ("loss NaN or infinite", "no update; stops, or skips as the recipe says", "numbers.non_finite", {}, {}),
    ("other versions, inputs or bits at a resume", "marked, refused, told", "numbers.resumed_elsewhere", {}, {}),
)


def tried(warm: Warm, function: str, given: dict[str, Any]) -> dict[str, Any]:
    """One promise tried, in memory where there is a disk of it: the faults are simulated, and fsync costs nothing."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        found: dict[str, Any] = warm.call(function, folder=folder, **given)
    return found


def main() -> int:
    """Tries all; the exit code says whether all held."""
    is_quick, names = "--quick" in sys.argv, [word for word in sys.argv[1:] if not word.startswith("-")]
    warm, lines, is_good = Warm(), [], True
    for fault, promise, function, long, quick in PROMISES:
        if names and not any(name in function for name in names):
            continue
        began = time.monotonic()
        try:
            found = tried(warm, function, quick if is_quick else long)
        except AssertionError as error:
            found = {"tried": 1, "held": 0, "bad": [str(error)]}
        is_good = is_good and not found["bad"]
        line = f"| {fault} | {promise} | `{function}` | {found['tried']} | {found['held']} |"
        print(line, f"{time.monotonic() - began:.0f} s", *found["bad"], sep="\n" if found["bad"] else " ", flush=True)
        lines.append(line)
    if not (is_quick or names):
        head = "| Fault | Promise | How tried | Times | Held |\n|---|---|---|---:|---:|\n"
        note = "Written by `python -m tests.faults`.\n\n"
        TABLE.write_text("# Faults, tried\n\n" + note + head + "\n".join(lines) + "\n")
    warm.close()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
