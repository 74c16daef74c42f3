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

GROUP = "cerank.executors"  # entry point group of plugins

Options = TypeVar("Options", bound=msgspec.Struct)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to carry out on another machine."""

    name: str  # short, of letters, digits and "-"
    lab: Path  # absolute; the other machine sees it under the same path
    module: str = "cerank.executors.on_node"  # what Python runs there
    arguments: tuple[str, ...] = ()

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

    def threads(self, setting: int) -> int:
        """Return the number of CPU threads of a plan for it; `setting` is the user's, 0 for no choice."""

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


def submitting_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment in which an executor's own commands run, and which a job inherits: no token is in it."""
    own = {"SLURM_CONF", "SLURM_CLUSTERS", "MODULEPATH", "SSH_AUTH_SOCK", "KUBECONFIG"}
    return inherited_environment(environ) | {
        key: value for key, value in environ.items() if key in own or key.startswith("SBATCH_")
    }
