"""Wrappers: executors that start a worker by another command on this machine, such as `nice`; an extension adds them.

`python -m cerank.scheduler.command_wrappers NAME RUN_DIR` becomes the command that the executor returns, so that the
queue and the commands start and watch it as they do any worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cerank.errors import CerankError, UsageError
from cerank.recipes.plan import Plan
from cerank.registry import Registry
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.scheduler.local_launcher import WORKER

# (command of the worker, plan of its run) -> the command to start; it must stay alive for as long as the worker does
Executor = Callable[[Sequence[str], Plan], Sequence[str]]

LOCAL = "local"
EXECUTORS: Registry[Executor] = Registry("executor")


@EXECUTORS.add(LOCAL)
def local(command: Sequence[str], plan: Plan) -> Sequence[str]:  # noqa: ARG001 - the signature of an executor
    """Return the worker's own command: a process on this machine."""
    return command


def worker_command(executor: str) -> tuple[str, ...]:
    """Return the command that carries a run out by this executor, without the folder of the run at its end.

    Raises:
        UsageError: no executor has this name.
    """
    EXECUTORS.find(executor, "executor")
    return WORKER if executor == LOCAL else (sys.executable, "-P", "-m", "cerank.scheduler.command_wrappers", executor)


def main() -> int:
    """Become the executor's command for a run; return an exit code only if that is not possible."""
    try:
        name, folder = sys.argv[1:]
        plan = run_store.load_plan(RunFolder(Path(folder).resolve()))
        command = [str(word) for word in EXECUTORS.find(name, "executor")([*WORKER, folder], plan)]
        if not command:
            raise UsageError(f"the executor '{name}' returned no command", where="executor")
        os.execvp(command[0], command)  # noqa: S606 - no shell, and the words are the executor's
    except CerankError as error:
        print(error, file=sys.stderr)  # noqa: T201 - its standard error is the run's log
        return error.exit_code
    except OSError as error:
        print(f"the executor's command cannot be started: {error}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    from cerank.scheduler import command_wrappers  # noqa: PLW0406 - the one whose registry the extensions fill, not __main__

    sys.exit(command_wrappers.main())
