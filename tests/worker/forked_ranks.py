"""Carry a run out in several processes on the CPU, forked from the test's own."""

from __future__ import annotations

import os
import sys

from cerank.training.trainer import Trainer
from cerank.worker import __main__ as worker_main
from tests.rank_processes import in_processes


def by_forks(run, count, fault=None, key=""):
    """The exit codes of the processes that carry a run out, forked from this one, as torchrun would have started them.

    Args:
        fault: (rank, signal): a signal that a process sends itself in its fifth step.
        key: variable that names the process to a server.
    """

    def carry_out():
        number = int(os.environ["RANK"])
        if key:
            os.environ[key] = f"key-of-rank-{number}"
        if count == 1:
            for name in ("RANK", "WORLD_SIZE"):
                del os.environ[name]
        with (run.path / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        real = Trainer.forward_backward

        def failing(self, passes, batch, step):
            if step == 5 and fault is not None and number == fault[0]:
                os.kill(os.getpid(), fault[1])
            return real(self, passes, batch, step)

        Trainer.forward_backward = failing
        sys.argv = ["worker", "--devices", ",".join(["cpu"] * count), str(run.path)]
        return int(worker_main.main())

    return in_processes(count, carry_out, run.path)
