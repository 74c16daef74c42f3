"""What an executor is: something that takes a worker's command, carries it out elsewhere, and says how that stands.

A plugin is a function (name, options) -> `JobExecutor` that a distribution names in the entry point group
`cerank.executors`. The lab must be on a file system that the other machines see under the same path: a run's state is
in its files, and what an executor says only explains why nothing is at work on it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cerank.core import decode
from cerank.errors import UsageError
from cerank.machine.process_environment import inherited_environment
from cerank.runs.job_records import JobState
from cerank.text.safe_text import counted

GROUP = "cerank.executors"  # entry point group of plugins
_SHOWN_DEVICES = {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}  # of this machine, not of the one that works

Options = TypeVar("Options", bound=msgspec.Struct)


class Needs(msgspec.Struct, frozen=True):
    """What the plan of a job computes with."""

    device: str  # "cuda" or "cpu"
    processes: int = 1  # each on a device of its own
    threads: int = 1  # of each process


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to carry out on another machine."""

    name: str  # short, of letters, digits and "-"
    lab: Path  # absolute; the other machine sees it under the same path
    module: str = "cerank.executors.on_node"  # what Python runs there
    arguments: tuple[str, ...] = ()
    needs: Needs | None = None  # None leaves it to the executor's options

    def command(self, python: str = "") -> tuple[str, ...]:
        """Return the command that does it, started by `python`; default: the Python that runs here."""
        return (python or sys.executable, "-P", "-m", self.module, *self.arguments)

    def shell_command(self, python: str = "") -> str:
        """Return the command as a line for a shell."""
        return shlex.join(self.command(python))


class SubmittedJob(msgspec.Struct, frozen=True):
    """What an executor gave a job."""

    id: str
    log: str = ""  # file of what the job prints, or the command that shows it


class JobExecutor(Protocol):
    """Where jobs are carried out. Its methods may take seconds, and raise `UsageError` with the executor's words."""

    @property
    def name(self) -> str:
        """As the user chose it."""

    @property
    def kind(self) -> str:
        """Which executor it is: "slurm", or the name of a plugin."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its options as the settings have them; they are stored with each job."""

    @property
    def waits_for_jobs(self) -> bool:
        """Return whether `submit` obeys `after`; if not, runs that share a stage become one job."""

    def device(self, setting: str) -> str:
        """Return the device of a plan for it: "cuda" or "cpu"; `setting` is the user's, such as "auto"."""

    def devices(self, setting: str, device: str) -> str:
        """Return how many devices share a plan for it, as the setting `devices` has it; "" for one.

        It raises where a job gets fewer than the user asks for. This machine's devices do not matter.

        Args:
            setting: the user's: "" for no choice, "all", how many, or which.
            device: device of the plan, as `device` returned it.
        """

    def threads(self, setting: int, processes: int = 1) -> int:
        """Return the CPU threads of each process of a plan for it; `setting` is the user's, 0 for no choice."""

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:
        """Submit jobs that may run at the same time, each once all of `after` have succeeded; return one for each."""

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return how the jobs stand, asked for at once; a job that it no longer knows is left out."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; one that has ended already is no error."""


def options_from(kind: type[Options], name: str, values: Mapping[str, Any]) -> Options:
    """Return an executor's options after checking them.

    Raises:
        UsageError: with everything that is wrong in them.
    """
    mistakes: list[str] = []
    options = decode.decode_table(kind, values, f"executors.{name}", mistakes)
    if options is None or mistakes:
        what = "\n".join(mistakes)
        raise UsageError(what, where=f"[executors.{name}]", hint="see `cerank guide clusters`", code="executor-option")
    return options


def counted_devices(name: str, setting: str, device: str, gpus: int, *, is_limit: bool) -> str:
    """Return the setting `devices` of a plan for jobs that a scheduler gives their GPUs; see `JobExecutor.devices`.

    Args:
        name: name of the executor, for errors.
        setting: the user's.
        device: device of the plan.
        gpus: GPUs of a job.
        is_limit: whether the user said that number; otherwise a job gets as many as its plan has devices.

    Raises:
        UsageError: jobs get fewer, or the setting names devices.

    >>> [counted_devices("slurm", text, "cuda", 2, is_limit=True) for text in ("", "all", "1")]
    ['2', '2', '1']
    """
    if not setting:
        return str(gpus) if device == "cuda" and gpus > 1 else ""
    if setting == "all" and device == "cuda":
        return str(gpus)
    if not setting.isdecimal():
        what = f"the scheduler chooses the devices of a job on {name}, so '{setting:.40}' cannot be asked for"
        raise UsageError(what, where="devices", hint="say how many: --devices 2", code="executor-device")
    if device == "cuda" and is_limit and int(setting) > gpus:
        what = f"jobs on {name} get {counted(gpus, 'GPU')}, and the run is for {setting} devices"
        hint = f"set gpus = {setting} in [executors.{name}], or take fewer devices"
        raise UsageError(what, where="devices", hint=hint, code="executor-device")
    return setting


def submitting_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment in which an executor's own commands run, and which a job inherits: no token is in it."""
    own = {"SLURM_CONF", "SLURM_CLUSTERS", "MODULEPATH", "SSH_AUTH_SOCK", "KUBECONFIG"}
    return job_environment(environ) | {
        key: value for key, value in environ.items() if key in own or key.startswith("SBATCH_")
    }


def job_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what a job inherits of the environment here: no token, and not which GPUs are shown on this machine."""
    return {key: value for key, value in inherited_environment(environ).items() if key not in _SHOWN_DEVICES}
