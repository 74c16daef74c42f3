"""Runs workers as forks of one process that has imported everything, so that a hundred starts cost little.

Usage: python -m tests.worker.forking RUN_DIR SEED KILLS LONGEST
Kills the worker KILLS times after a random time of at most LONGEST seconds, then lets it finish. Prints one line:
the number of attempts, and the exit code of the last.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import cerank.evaluate.measures
import cerank.worker.__main__ as worker
import cerank.worker.pipeline


def attempt(run: str, seconds: float | None) -> int:
    """One worker on the run, killed after `seconds`; its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        sys.argv = ["worker", run]
        log = os.open(f"{run}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(worker.main())
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Kills at random, then finishes."""
    run, seed, kills, longest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    draw = random.Random(seed)
    done = 0
    while done < kills and attempt(run, draw.uniform(0.05, longest)) < 0:
        done += 1
    print(done + 1, attempt(run, None))


if __name__ == "__main__":
    # what a worker imports late is imported here, once, before the first fork
    assert cerank.evaluate.measures
    assert cerank.worker.pipeline
    import ir_measures  # noqa: F401
    from transformers import AutoModel, AutoTokenizer  # noqa: F401

    main()
