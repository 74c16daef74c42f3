"""The batch script of a Slurm job, made from the options of `[executors.NAME]`.

Invariant: everything from outside is quoted, or checked to be one word; the script needs no cerank outside the
container, only bash and scontrol.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Annotated

import msgspec

from cerank.core.decode import help_text
from cerank.errors import UsageError
from cerank.executors.interface import Job

REQUEUE = 85  # exit code by which the program on the node asks its script to requeue the job
_WORD = re.compile(r"[\w.,:=@%+/\[\]&|*()-]*")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")

_Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class SlurmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[executors.NAME]` of a Slurm cluster; an option that is not given is left to the cluster."""

    kind: Annotated[str, help_text('"slurm", where the table has another name')] = "slurm"
    partition: Annotated[str, help_text("partition, or several with commas")] = ""
    account: Annotated[str, help_text("account that pays")] = ""
    qos: Annotated[str, help_text("quality of service")] = ""
    gpus: Annotated[_Count, help_text("GPUs of a job; 0 computes on the CPU")] = 1
    gpu_type: Annotated[str, help_text("type of the GPUs, such as a100")] = ""
    cpus: Annotated[_Count, help_text("CPU cores of a job, which are also the plan's threads")] = 4
    memory: Annotated[str, help_text("memory of a job, such as 32G")] = ""
    time: Annotated[str, help_text("time limit: minutes, hours:minutes:seconds or days-hours:minutes:seconds")] = ""
    constraint: Annotated[str, help_text("features that a node must have")] = ""
    nodelist: Annotated[str, help_text("nodes to use")] = ""
    exclude: Annotated[str, help_text("nodes not to use")] = ""
    array_limit: Annotated[_Count, help_text("jobs of a matrix that run at once; 0 sets no limit")] = 0
    max_requeues: Annotated[_Count, help_text("how often a job is requeued before it is given up")] = 20
    warn_seconds: Annotated[_Count, help_text("how long before its time limit a job is asked to save and stop")] = 120
    setup: Annotated[tuple[str, ...], help_text("shell lines before the work, such as `module load cuda`")] = ()
    venv: Annotated[str, help_text("virtual environment with cerank on the node; default: the one in use here")] = ""
    container: Annotated[str, help_text("words before Python, such as `apptainer exec --nv cerank.sif`")] = ""
    python: Annotated[str, help_text("Python on the node or in the container; default: the one in use here")] = ""
    sbatch: Annotated[tuple[str, ...], help_text("further options of sbatch, such as `--reservation=x`")] = ()

    def checked(self, where: str) -> SlurmOptions:
        """Return the options if each is one that a line of a script can hold.

        Raises:
            UsageError: one is not; the error names it.
        """
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, str) and field not in {"container", "venv", "python"} and not _WORD.fullmatch(value):
                what = f"{field}: not a value that sbatch takes; given: {value!r:.80}"
                raise UsageError(what, where=where, code="executor-option")
        for line in (*self.setup, *self.sbatch, self.container, self.venv, self.python):
            if "\n" in line or "\0" in line:
                raise UsageError("an option has several lines", where=where, code="executor-option")
        for option in self.sbatch:
            if not re.fullmatch(r"-\w.*|--[\w-]+(=.*)?", option):
                what = f"sbatch: not an option of sbatch; given: {option!r:.80}"
                raise UsageError(what, where=where, hint="write it as --name=value", code="executor-option")
        if self.time:
            seconds_of(self.time, where)
        return self


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(SlurmOptions)}
COUNTS = frozenset(name for name, default in _DEFAULTS.items() if isinstance(default, int))  # options with a number
LISTS = frozenset(name for name, default in _DEFAULTS.items() if isinstance(default, tuple))  # and with several lines


def seconds_of(time: str, where: str) -> int:
    """Return a time limit as Slurm writes it in seconds.

    Raises:
        UsageError: it is no such time.

    Example:
        >>> seconds_of("1-02:00:00", ""), seconds_of("90", ""), seconds_of("4:00:00", "")
        (93600, 5400, 14400)
    """
    match = _TIME.fullmatch(time)
    if match is None:
        what = f"time: not a time limit; given: {time!r:.40}"
        raise UsageError(what, where=where, hint="such as 90 (minutes), 4:00:00 or 1-12:00:00", code="executor-option")
    days, *parts = [int(part) if part else None for part in match.groups()]
    given = [part for part in parts if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*given, 0, 0][:3]
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(given) == 1:
        return given[0] * 60
    hours, minutes, seconds = given if len(given) == 3 else (0, *given)
    return (hours * 60 + minutes) * 60 + seconds


def batch_script(options: SlurmOptions, jobs: Sequence[Job], after: Sequence[str], log: str, where: str) -> str:
    """Return the script that carries jobs out: one job, or an array with a task for each.

    Args:
        options: as `SlurmOptions.checked` returned them.
        jobs: at least one; they differ in their arguments only.
        after: jobs that must have succeeded before.
        log: file for what the script prints, with Slurm's signs such as %A and %a.
        where: where the options are from, for errors.

    Raises:
        UsageError: the file is none that a line of a script can name.
    """
    if re.search(r'[\x00-\x1f\x7f"\\]', log):
        what = "sbatch cannot write into a folder with a quote, a backslash or a control character in its path"
        raise UsageError(f"{what}; given: {log!r:.200}", where="lab", hint="move the lab", code="executor-option")
    options_of_sbatch = {
        "job-name": jobs[0].name if len(jobs) == 1 else f"{jobs[0].name}-and-{len(jobs) - 1}-more",
        "output": log if _WORD.fullmatch(log) else f'"{log}"',  # as sbatch reads it
        "open-mode": "append",
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": f"gpu:{options.gpu_type + ':' if options.gpu_type else ''}{options.gpus}" if options.gpus else "",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(options.cpus) if options.cpus else "",
        "mem": options.memory,
        "time": options.time,
        "constraint": options.constraint,
        "nodelist": options.nodelist,
        "exclude": options.exclude,
        "array": f"0-{len(jobs) - 1}" + (f"%{options.array_limit}" if options.array_limit else ""),
        "dependency": f"afterok:{':'.join(after)}" if after else "",
    }
    if len(jobs) == 1:
        del options_of_sbatch["array"]
    warn = options.warn_seconds
    if options.time:  # a warning that comes as the job starts would stop it before it did anything
        warn = min(warn, seconds_of(options.time, where) // 3)
    lines = ["#!/bin/bash", *(f"#SBATCH --{key}={value}" for key, value in options_of_sbatch.items() if value)]
    lines += ["#SBATCH --requeue", f"#SBATCH --signal=B:USR2@{max(1, warn)}"]
    lines += [f"#SBATCH {option}" for option in options.sbatch]
    lines += ["", f"cd {shlex.quote(str(jobs[0].lab))} || exit 1"]
    lines += options.setup
    python = options.python or (f"{options.venv.rstrip('/')}/bin/python" if options.venv else "")
    prefix = f"{options.container} " if options.container else ""
    lines.append("case ${SLURM_ARRAY_TASK_ID:-0} in")
    lines += [
        f"  {number}) run() {{ exec {prefix}{job.shell_command(python)}; }} ;;" for number, job in enumerate(jobs)
    ]
    lines += ["esac", *_ENDING.format(requeue=REQUEUE).strip().split("\n"), ""]
    return "\n".join(lines)


_ENDING = """
# The signal before the time limit reaches only this shell. It is passed on until the run has saved a checkpoint and
# ended: again and again, for Python hears nothing while it starts.
told=
trap 'told=USR2' USR2
trap 'told=TERM' TERM
(trap '' USR2 TERM; run) &
worker=$!
while kill -0 "$worker" 2>/dev/null; do
  [ -z "$told" ] || kill "-$told" "$worker" 2>/dev/null
  sleep 1
done
wait "$worker"
code=$?
if [ "$code" = {requeue} ]; then
  echo "requeueing job $SLURM_JOB_ID"
  scontrol requeue "$SLURM_JOB_ID" && sleep 30
fi
exit "$code"
"""
