"""A worker to which every file of queries, judgments and rankings is large: `python -m tests.worker.large_files RUN`.

A program of its own, for the workers that tests start otherwise are forks of a process that knows no changed limits.
"""

from __future__ import annotations

import os
import subprocess
import sys

from cerank.datasets import local_folders
from cerank.machine.process_environment import pinned_environment
from cerank.runs.layout import RunFolder
from cerank.trec import open_run, query_places
from cerank.worker.__main__ import main
from tests.warm import ROOT


def attempt(run: RunFolder, seconds: float | None = None) -> int:
    """Return the exit code of one such worker on the run, killed after `seconds`; then minus the signal."""
    environ = os.environ | pinned_environment(1) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.worker.large_files", str(run.path)]
    with run.log.open("ab") as output:
        process = subprocess.Popen(command, cwd=run.path, env=environ, stdout=output, stderr=output)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


if __name__ == "__main__":
    local_folders.LARGE_QUERIES = open_run.LARGE = query_places.MANY_QUERIES = 1  # type: ignore[misc]
    sys.exit(main())
