"""Starts a worker on this machine as a process in its own session, so that it outlives the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from cerank.errors import RunFailedError, os_error
from cerank.files import disk
from cerank.machine import device_locks, devices
from cerank.machine.process_environment import inherited_environment, pinned_environment
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder

Process = subprocess.Popen[bytes]

# -P: do not search the working folder for modules, where a file could shadow one of Python's own
WORKER = (sys.executable, "-P", "-m", "cerank.worker")


def environment(plan: Plan, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker: selected variables, and those that make its numbers reproducible.

    The worker never asks the network: what it reads was found and hashed when the plan was made.
    """
    return inherited_environment(given) | pinned_environment(plan.threads)


def start(
    plan: Plan,
    folder: RunFolder,
    *,
    command: Sequence[str] = WORKER,
    given: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
    key: str = "",
) -> Process:
    """Start a worker on the run and return at once; its output goes to the run's log.

    Whoever started it may end: the worker is in a session of its own, so that closing the terminal does not reach it.

    Args:
        plan: the plan of the run.
        folder: the folder of the run; its path becomes the command's last argument.
        command: the program that carries out the run, with its arguments.
        given: the environment to select variables from; default: this process's own.
        inherited: open descriptors that the worker keeps open as long as it lives, such as a device's lock.
        key: the machine-wide key of the device that the worker gets, several with commas; default: found from the plan.

    Raises:
        RunFailedError: the run's folder is gone or full, or the system takes no more processes.
    """
    given = os.environ if given is None else given
    if not key:
        names = [devices.device_of_process(plan.devices, number) for number in range(len(plan.devices))]
        key = ",".join(dict.fromkeys(devices.device_key(name, given) for name in names or (plan.device,)))
    run_store.clear_stop(folder)  # an old request; a request from now on is meant for the new worker
    log = disk.open_append(folder.log)
    try:
        return subprocess.Popen(
            [*command, str(folder.path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=subprocess.STDOUT,
            env=environment(plan, given) | {device_locks.DEVICE: key},
            cwd=folder.path,
            start_new_session=True,
            pass_fds=tuple(inherited),
        )
    except OSError as error:
        raise os_error(error, folder.name, RunFailedError, doing="cannot start a worker process") from error
    finally:
        disk.close(log)
