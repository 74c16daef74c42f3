"""How long `cerank ps` takes where each look at a file costs a round trip, as on a network disk.

`python -m tests.benchmarks.slow_disk [RUNS]` makes a lab of so many runs (500), most of them finished with 24 files
that have checksums, and prints the seconds of a first list, which has no index yet, and of the next ones: from the
start of the command to its last line, without the start of Python. Each open, stat and listing waits for 1.5 ms.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cerank.cli.typer_app import app
from cerank.runs import checksums, run_names, run_store
from tests.benchmarks.dashboard import a_lab

RUNS = 500
ROUND_TRIP = 0.0015  # seconds
LISTS = 4
counted: Counter[str] = Counter()


def wait_before(module: Any, name: str) -> None:
    """Make a function of a module wait for a round trip before it does its work."""
    real = getattr(module, name)

    def waiting(*args: Any, **kwargs: Any) -> Any:
        if not (args and isinstance(args[0], int)):  # a descriptor that is open costs no round trip
            counted[name] += 1
            time.sleep(ROUND_TRIP)
        return real(*args, **kwargs)

    setattr(module, name, waiting)


def make_lab(path: Path, runs: int) -> None:
    """Make runs, of which those that are finished have as many files as a real one of two stages and two tests."""
    lab = a_lab(path, runs)
    for folder in run_store.folders(path):
        if folder.done.exists():
            files = [folder.path / kind / name / f"{number}" for kind in ("rankings", "measures")
                     for name in ("first-stage", "contrastive", "distill") for number in range(4)]  # fmt: skip
            for file in files:
                file.write_bytes(b"x" * 100)
            checksums.record(folder, files)
            os.utime(folder.path)  # a run's outcome is written last
    for held in lab.leases:
        held.release()


def main() -> None:
    """Print the seconds and the operations of each list."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    fsync, os.fsync = os.fsync, lambda _: None
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder) / "lab"
        make_lab(lab, runs)
        os.fsync = fsync
        time.sleep(3)  # what changed a moment ago is not put into the index
        os.environ |= {"CERANK_CACHE": str(Path(folder) / "cache"), "CERANK_LAB": str(lab)}
        for name in ("stat", "lstat", "open", "scandir", "listdir"):
            wait_before(os, name)
        wait_before(io, "open")
        wait_before(builtins, "open")
        for number in range(LISTS):
            run_names.cached_names.clear()  # as in a process of its own
            counted.clear()
            began = time.monotonic()
            with contextlib.redirect_stdout(io.StringIO()):
                app(["ps"], standalone_mode=False)
            what = "first list" if number == 0 else "next list"
            print(f"{what}: {time.monotonic() - began:.2f} s, {counted.total():,} operations")


if __name__ == "__main__":
    main()
