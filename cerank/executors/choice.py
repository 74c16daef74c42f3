"""Which executor a name stands for: this machine, one that comes with cerank, or a plugin's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from cerank.errors import UsageError
from cerank.executors.interface import GROUP, JobExecutor
from cerank.registry import nearest
from cerank.runs.job_records import JobRecord
from cerank.scheduler import command_wrappers
from cerank.settings import Settings

Factory = Callable[[str, Mapping[str, Any]], JobExecutor]


def find(settings: Settings, name: str = "", options: Mapping[str, Any] | None = None) -> JobExecutor | None:
    """Return the executor of that name, or None for this machine (which includes commands that wrap a worker).

    Args:
        settings: settings in force; they may have a table `[executors.NAME]`.
        name: name of the executor; default: the setting `executor`.
        options: options that win over those of the table.

    Raises:
        UsageError: there is no such executor, or its options are wrong.
    """
    name = name or settings.executor
    tables = settings.executors
    if name not in tables and (name == command_wrappers.LOCAL or name in command_wrappers.EXECUTORS):
        if options:
            raise UsageError(f"the executor '{name}' has no options", where="--slurm", code="executor-option")
        return None
    table = {**tables.get(name, {}), **(options or {})}
    return _made(str(table.get("kind", name)), name, table, tables)


def of_job(record: JobRecord, options: Mapping[str, Any] | None = None) -> JobExecutor:
    """Return the executor that a job was submitted to, with the options that it was submitted with.

    Args:
        record: the job.
        options: options that win over those.

    Raises:
        UsageError: it was a plugin's, which is gone.
    """
    return _made(record.kind, record.executor, {**record.options, **(options or {})}, {})


def _made(kind: str, name: str, options: Mapping[str, Any], tables: Mapping[str, object]) -> JobExecutor:
    if kind == "slurm":
        from cerank.executors.slurm import SlurmExecutor

        return SlurmExecutor(name, options)
    if kind == "command":
        from cerank.executors.command_template import CommandExecutor

        return CommandExecutor(name, options)
    if kind == "ray":
        from cerank.executors.ray_jobs import RayExecutor

        return RayExecutor(name, options)
    plugins = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in plugins:
        if kind != name:
            known = nearest(kind, ("slurm", "command", "ray", *plugins))
            raise UsageError(
                f"no kind of executor is called '{kind}'", where=f"[executors.{name}]", hint=known, code="no-executor"
            )
        names = {command_wrappers.LOCAL, "slurm", "command", "ray", *command_wrappers.EXECUTORS, *plugins, *tables}
        what = f"no executor is called '{name}'"
        raise UsageError(what, where="executor", hint=nearest(name, names), code="no-executor")
    factory: Factory = plugins[kind].load()
    return factory(name, options)
