"""A Ray cluster as an executor: its job server takes a worker's command, and says how that stands.

A job runs once and ends with its cluster; cerank resumes a run from its last checkpoint when it is submitted again.
"""

from __future__ import annotations

import contextlib
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from cerank.core.decode import help_text
from cerank.errors import MissingError, UsageError
from cerank.executors.interface import Job, SubmittedJob, counted_devices, job_environment, options_from
from cerank.files import json_records
from cerank.runs.job_records import JobState, Phase

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_PHASES: dict[str, Phase] = {"PENDING": "pending", "RUNNING": "running"}
_Part = Annotated[float, msgspec.Meta(ge=0.0, le=4096.0)]


class RayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[executors.NAME]` of a Ray cluster."""

    kind: Annotated[str, help_text('"ray", where the table has another name')] = "ray"
    address: Annotated[str, help_text("address of the job server")] = "http://127.0.0.1:8265"
    gpus: Annotated[_Part, help_text("GPUs of a job, or the part of one that it takes, such as 0.5")] = 1.0
    cpus: Annotated[_Part, help_text("CPU cores of a job")] = 4.0
    resources: Annotated[dict[str, float], help_text("other resources of the cluster that a job takes")] = {}
    python: Annotated[str, help_text("Python on the nodes; default: the one in use here")] = ""


class RayExecutor:
    """A Ray cluster whose job server can be reached.

    Args:
        name: as the settings call it.
        options: the table `[executors.NAME]`.

    Raises:
        UsageError: an option is wrong.
    """

    kind = "ray"
    waits_for_jobs = False

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, dict(options)
        self._where = f"[executors.{name}]"
        self._options = options_from(RayOptions, name, options)

    def device(self, setting: str) -> str:
        """Return the GPU if the jobs get one, else the CPU; the user may ask for the CPU."""
        return ("cuda" if self._options.gpus else "cpu") if setting == "auto" else setting

    def devices(self, setting: str, device: str) -> str:
        """Return as many devices as a job gets whole GPUs, or as many as the user asks for.

        Raises:
            UsageError: jobs get fewer, or certain devices are asked for.
        """
        gpus = max(1, int(self._options.gpus))  # with a part of one, a run uses that one
        return counted_devices(self.name, setting, device, gpus, is_limit="gpus" in self.options)

    def threads(self, setting: int, processes: int = 1) -> int:
        """Return the threads of each process: its share of the job's cores, unless the user set others."""
        return setting or max(1, int(self._options.cpus) // processes)

    def submit(self, jobs: Sequence[Job], after: Sequence[str] = ()) -> list[SubmittedJob]:  # noqa: ARG002 - interface
        """Submit each job; Ray starts it when the cluster has what it takes.

        Raises:
            UsageError: the cluster is not reached, or refuses.
            MissingError: ray is not installed.
        """
        client = self._client()
        environment = {key: value for key, value in job_environment().items() if key != "PATH"}
        submitted = []
        for job in jobs:
            line = f"env {shlex.join(f'{key}={value}' for key, value in environment.items())}"
            gpus, cpus = self._amounts(job)
            with self._refusals():
                id_ = client.submit_job(
                    entrypoint=f"exec {line} {job.shell_command(self._options.python)}",
                    submission_id=f"{job.name}-{uuid.uuid4().hex[:8]}",
                    entrypoint_num_gpus=gpus or None,
                    entrypoint_num_cpus=cpus or None,
                    entrypoint_resources=self._options.resources or None,
                )
            submitted.append(SubmittedJob(id_, f"ray job logs --address {self._options.address} {id_}"))
        return submitted

    def _amounts(self, job: Job) -> tuple[float, float]:
        """Return the GPUs and the cores of a job."""
        gpus, cpus, needs = self._options.gpus, self._options.cpus, job.needs
        if needs is not None and needs.device == "cpu" and "gpus" not in self.options:
            gpus = 0.0  # a plan for the CPU takes no GPU that nobody asked for
        elif needs is not None and needs.device == "cuda":
            gpus = float(needs.processes) if needs.processes > 1 else min(1.0, gpus)
        if needs is not None and needs.processes > 1:
            cpus = max(cpus, float(needs.processes * needs.threads))
        return gpus, cpus

    def states(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Return how the jobs stand, by one question for all jobs of the cluster.

        Raises:
            UsageError: the cluster is not reached.
            MissingError: ray is not installed.
        """
        client = self._client()
        with self._refusals():
            known = {details.submission_id: details for details in client.list_jobs()}
        return {id_: _state(known[id_]) for id_ in ids if id_ in known}

    def cancel(self, ids: Sequence[str]) -> None:
        """Stop jobs.

        Raises:
            UsageError: the cluster is not reached, or refuses.
            MissingError: ray is not installed.
        """
        client = self._client() if ids else None
        for id_ in ids:
            with self._refusals():
                if client is not None:
                    client.stop_job(id_)

    def _client(self) -> JobSubmissionClient:
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            hint = "pip install 'cerank[ray]'"
            raise MissingError("ray is not installed", where=self._where, hint=hint, code="library-missing") from None
        with self._refusals():
            return JobSubmissionClient(self._options.address)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what ray raises where its server is away or refuses into an error that names the address."""
        try:
            yield
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            what = f"the Ray cluster at {self._options.address} gave no answer, or refused: {str(error)[:300]}"
            hint = "`ray start --head` starts one; its address is that of the dashboard"
            raise UsageError(what, where=self._where, hint=hint, code="executor-refused") from error


def _state(details: Any) -> JobState:
    word = str(details.status)
    start = datetime.fromtimestamp(details.start_time / 1000, UTC) if details.start_time else None
    return JobState(
        phase=_PHASES.get(word, "ended"),
        word=word,
        reason=(details.message or "").split("\n")[0][:200] if word != "RUNNING" else "",
        start=json_records.timestamp(start) if start and word != "PENDING" else "",
    )
