"""Any other scheduler as an executor: a template with `{command}` that is printed, or run by the shell.

Invariant: what is put into the template is quoted for the shell as one word where it stands for one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from cerank.core.decode import help_text
from cerank.errors import UsageError
from cerank.executors.interface import Job, SubmittedJob, options_from, submitting_environment
from cerank.files import disk
from cerank.runs.job_records import JobState
from cerank.runs.layout import JobFolder

_FIELDS = ("{command}", "{quoted}", "{name}")


class CommandOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[executors.NAME]` of another scheduler."""

    kind: Annotated[str, help_text('"command", where the table has another name')] = "command"
    template: Annotated[str, help_text("shell line with {command}, or with {quoted}: the command as one word")] = (
        "{command}"
    )
    action: Annotated[Literal["print", "run"], help_text("print the line, or run it here by the shell")] = "print"
    cancel: Annotated[str, help_text("shell line with {id} that cancels; the id is what the template printed last")] = (
        ""
    )
    device: Annotated[Literal["cpu", "cuda"], help_text("device of the other machine")] = "cuda"
    cpus: Annotated[int, msgspec.Meta(ge=1, le=4096), help_text("CPU threads of the plan")] = 4
    python: Annotated[str, help_text("Python on the other machine; default: the one in use here")] = ""


class CommandExecutor:
    """A command of the user's that carries a worker's command elsewhere.

    Args:
        name: as the settings call it.
        options: the table `[executors.NAME]`.

    Raises:
        UsageError: an option is wrong, or the template has no place for the command.
    """

    kind = "command"
    waits_for_jobs = False

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, dict(options)
        self._where = f"[executors.{name}]"
        self._options = options_from(CommandOptions, name, options)
        if not any(field in self._options.template for field in _FIELDS[:2]):
            hint = 'such as template = "sky launch --yes -- {command}"'
            raise UsageError("template: has no {command}", where=self._where, hint=hint, code="executor-option")
        if self._options.cancel and "{id}" not in self._options.cancel:
            raise UsageError("cancel: has no {id}", where=self._where, code="executor-option")

    @property
    def prints(self) -> bool:
        """Return whether the line is only printed, so that the user runs it."""
        return self._options.action == "print"

    def device(self, setting: str) -> str:
        """Return the device of a plan: what the user asked for, else that of the other machine."""
        return self._options.device if setting == "auto" else setting

    def devices(self, setting: str, device: str) -> str:  # noqa: ARG002 - interface
        """Return the devices that the user asks for; how many the other machine has is not known here.

        Raises:
            UsageError: all of them are asked for.
        """
        if setting == "all":
            what = f"how many devices {self.name} has is not known here"
            raise UsageError(what, where="devices", hint="say how many: --devices 2", code="executor-device")
        return setting

    def threads(self, setting: int, processes: int = 1) -> int:
        """Return the threads of each process of a plan."""
        return setting or max(1, self._options.cpus // processes)

    def line(self, job: Job) -> str:
        """Return the shell line of a job."""
        command = job.shell_command(self._options.python)
        inserted = {"{quoted}": shlex.quote(command), "{command}": command, "{name}": job.name}
        return re.sub("|".join(map(re.escape, _FIELDS)), lambda field: inserted[field[0]], self._options.template)

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:  # noqa: ARG002 - interface
        """Run the line of each job, unless the user is to run it; the last word that it prints is the job's id.

        Raises:
            UsageError: the line ends with another code than 0; the error has what it printed.
        """
        return [SubmittedJob("") if self.prints else self._run(job) for job in jobs]

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return that nobody knows how the jobs stand: the files of their runs tell it."""
        return {job: JobState(phase="unknown", word="SUBMITTED") for job in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """Run the line that cancels a job, where there is one.

        Raises:
            UsageError: it ends with another code than 0.
        """
        for job in [job for job in ids if job and self._options.cancel]:
            self._shell(self._options.cancel.replace("{id}", shlex.quote(job)))

    def _run(self, job: Job) -> SubmittedJob:
        log = JobFolder(job.lab).logs / f"{job.name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.txt"
        disk.make_folder(log.parent)
        printed = self._shell(self.line(job))
        disk.write(log, printed.encode())
        return SubmittedJob((printed.split() or [""])[-1][:200], str(log))

    def _shell(self, line: str) -> str:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", line],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                env=submitting_environment(os.environ),
            )
        except OSError as error:
            raise UsageError(f"the line cannot be run: {error.strerror}", where=self._where) from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[:1000]
            what = (
                f"the line ended with {done.returncode}: {said}" if said else f"the line ended with {done.returncode}"
            )
            raise UsageError(what, where=self._where, hint=line[:200], code="executor-refused")
        return done.stdout
