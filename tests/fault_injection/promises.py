"""What is promised, and how each promise is tried: at length, and a few times.

Invariant: what a row of the table says was tried by the function or the tests that it names, and counted by them.
"""

from __future__ import annotations

from typing import Any

import msgspec

SAME = "the run ends with the same bits"


class Promise(msgspec.Struct, frozen=True):
    """A row of the table."""

    fault: str
    promise: str
    how: str  # "module.function" of this package, or words for pytest
    long: tuple[dict[str, Any], ...] = ({},)  # parts of the long form, which may be tried side by side
    quick: dict[str, Any] | None = None  # None: the tests named are part of the suite as they are
    is_alone: bool = False  # it measures time, so nothing else is tried meanwhile
    each: int = 1  # times that one test of pytest tries it
    environ: dict[str, str] = {}
    seconds: float = 10.0  # of the long form, about; the longest are begun first

    @property
    def is_tests(self) -> bool:
        """Whether pytest tries it."""
        return self.how.startswith("tests/")


def halves(**given: Any) -> tuple[dict[str, Any], ...]:
    """Every second one, and the others."""
    return tuple({**given, "every": 2, "offset": offset} for offset in (0, 1))


def seeds(count: int, **given: Any) -> tuple[dict[str, Any], ...]:
    """`count` of one seed and as many of another."""
    return tuple({**given, "count": count, "seed": seed} for seed in (0, 1))


PROMISES: tuple[Promise, ...] = (
    # kills and power
    Promise("kill -9 at a random time", SAME, "kills.random_kills", seeds(100), {"count": 6}, seconds=200),
    Promise(
        "kill before each disk operation",
        SAME,
        "kills.crash_points",
        halves(),
        {"every": 90, "offset": 31},
        seconds=240,
    ),
    Promise(
        "the same while a stage is taken over from another run",
        SAME,
        "kills.crash_points",
        halves(adopts=True),
        {"every": 70, "offset": 11, "adopts": True},
        seconds=100,
    ),
    Promise(
        "power cut at a disk operation",
        "opens, and ends with the same bits",
        "power.cuts",
        halves(),
        {"every": 120},
        seconds=120,
    ),
    Promise(
        "power cut between two readings",
        "at most 5 s of readings are lost",
        "power.lost_seconds",
        ({"rows": 5000},),
        {},
    ),
    Promise(
        "the system's killer while memory is short (SIGKILL in a training step)",
        SAME,
        "kills.in_a_step",
        ({"count": 20},),
        {"count": 2},
        seconds=30,
    ),
    # damage
    Promise(
        "a file of a finished run damaged",
        "named, marked, mended where it can be; other runs undisturbed",
        "corruption.finished",
        seeds(136),
        {"count": 24},
        seconds=60,
    ),
    Promise(
        "a file of a killed run damaged",
        "the same bits, or the loss is said",
        "corruption.unfinished",
        seeds(100),
        {"count": 5},
        seconds=120,
    ),
    Promise(
        "the list of hashes damaged while two workers start",
        "the same bits by one of them, and no fault of the program",
        "corruption.hash_lists",
        seeds(35),
        {"count": 2},
        seconds=90,
    ),
    Promise(
        "several files of a run filled with zeros, garbage or nothing",
        "mended or refused with the file's name; no other error",
        "corruption.mendings",
        seeds(1000),
        {"count": 30},
        seconds=60,
    ),
    # disks
    Promise(
        "disk full, at many levels",
        "fails saying so, goes on with room",
        "disks.full",
        ({"levels": 20},),
        {"levels": 4},
        seconds=40,
    ),
    Promise("read-only disk", "refused with place and hint, nothing begun", "disks.read_only", ({},), {}),
    Promise(
        "folder moved, deleted or forbidden while open",
        "a clean end; others go on",
        "disks.lost_folder",
        ({"count": 30},),
        {"count": 3},
        seconds=40,
    ),
    # signals
    Promise(
        "SIGTERM, SIGUSR1, SIGUSR2, SIGINT",
        "exit 75 in 5 s, same bits",
        "signals.pauses",
        ({"count": 50},),
        {"count": 4},
        is_alone=True,
        seconds=90,
    ),
    Promise(
        "SIGINT twice",
        "ends, same bits",
        "signals.interrupted_twice",
        ({"count": 30},),
        {"count": 2},
        is_alone=True,
        seconds=60,
    ),
    # several at once
    Promise("8 workers start one run at once", "exactly one writes", "races.starters", ({"races": 20},), {"races": 2}),
    Promise(
        "the same without file locks",
        "exactly one writes",
        "races.starters",
        ({"races": 20, "without_locks": True},),
        {"races": 2, "without_locks": True},
    ),
    Promise(
        "holder killed, its child alive",
        "the lease is free at once",
        "races.dead_holders",
        ({"count": 20},),
        {"count": 2},
    ),
    Promise(
        "the same without file locks",
        "the lease is free at once",
        "races.dead_holders",
        ({"count": 20, "without_locks": True},),
        {"count": 2, "without_locks": True},
    ),
    Promise(
        "8 workers of two labs on two devices of one machine, one of them killed",
        "a device has one user at a time; all get it",
        "races.two_labs",
        ({"races": 20},),
        {"races": 2},
    ),
    Promise(
        "the queues of two labs with one device; a folder of locks that is not safe; no locks",
        "one run at a time, the other says for which device it waits; never blocked",
        "tests/scheduler/test_two_labs.py tests/machine/test_device_locks.py tests/worker/test_run_context.py",
        is_alone=True,
    ),
    Promise("two removals at once", "gone, nothing left over", "races.removals", ({"count": 50},), {"count": 3}),
    Promise("clock jumps by up to 11 years", "no state flips, no negative age", "races.clocks", ({},), {}),
    Promise(
        "a stale lease, a pid taken by another process, a reboot",
        "not believed; nobody else is signaled",
        "tests/files/test_lease.py tests/files/test_lease_files.py",
        is_alone=True,
    ),
    # numbers
    Promise(
        "loss NaN or infinite",
        "no update; stops, or skips as the recipe says",
        "numbers.non_finite",
        ({},),
        {"steps": [2]},
        seconds=20,
    ),
    Promise(
        "out of memory in a training step",
        "half as much at once, groups per step the same, losses within 1e-5, on record",
        "numbers.out_of_memory",
        ({"count": 20},),
        {"count": 2},
        seconds=20,
    ),
    Promise(
        "other versions, inputs or bits at a resume", "marked, refused, told", "numbers.resumed_elsewhere", ({},), {}
    ),
    Promise(
        "scores that tie or are NaN",
        "one order for all measures; NaN refused",
        "tests/core/test_rankings.py tests/trec/test_text_io.py tests/evaluation/test_measures.py "
        "tests/inference/test_rerank.py -k 'tie or tied or finite or order'",
    ),
    Promise("a replay that differed, in a comparison", "a line says so", "tests/app/comparison/test_doubts.py"),
    # terminals, text, files
    Promise(
        "the dashboard killed, its terminal closed; the worker killed while shown",
        "the job goes on; shown as lost, one key resumes it",
        "tests/tui/test_kills.py",
        environ={"CERANK_KILLS": "20"},
        each=20,
        is_alone=True,
        seconds=150,
    ),
    Promise(
        "two dashboards and commands on one lab while runs start and stop",
        "all show the same; none fails; nothing is lost",
        "tests/fault_injection/test_dashboards.py",
        environ={"CERANK_KILLS": "20"},
        each=20,
        is_alone=True,
        seconds=60,
    ),
    Promise(
        "a malformed run, qrels, topics, import, recipe, matrix, record; bombs; pipes",
        "cerank's own error with its place, in bounded memory",
        "tests/fuzzing/test_readers.py",
        seconds=60,
    ),
    Promise(
        "a run of 10 million lines",
        "read in 60 s and 1.5 GB; a frame of the dashboard takes less than 100 ms meanwhile",
        "huge.ten_million",
        ({},),
        is_alone=True,
        seconds=90,
    ),
    Promise(
        "control, bidi, markup, huge and half characters in every text",
        "no byte of it steers a terminal",
        "tests/fuzzing/test_terminal.py tests/tui/test_safety.py",
        is_alone=True,
        seconds=60,
    ),
    Promise(
        "a model folder with code, pickles, links out, pipes",
        "refused, or loaded without touching them; nothing runs",
        "tests/fuzzing/test_model_folders.py",
        seconds=20,
    ),
    Promise(
        "an access token in the environment, a recipe, an option, an error, or printed by a library",
        "in no file, log or screen",
        "tests/fuzzing/test_tokens.py tests/worker/test_captured_output.py",
        seconds=20,
    ),
)
