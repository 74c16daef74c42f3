"""A lab: a folder of runs, and what may be done with them."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.errors import CerankError, UsageError
from cerank.executors import choice, polling
from cerank.executors.interface import JobExecutor
from cerank.files import disk, lease
from cerank.machine import devices, process_environment
from cerank.machine.devices import Device
from cerank.planning import several_devices
from cerank.recipes.plan import Plan
from cerank.runs import job_records, queue, run_store
from cerank.runs.job_records import JobRecord
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.run_store import RunRow, Status
from cerank.scheduler import command_wrappers, local_launcher, queue_status, supervisor
from cerank.scheduler.queue_status import QueueState
from cerank.settings import Settings

Worker = local_launcher.Process

_STARTING = 10.0  # seconds that a worker may take from its start to its lease
TRASH_SECONDS = 7 * 86_400.0  # that a deleted run can be brought back
_CAN_WAIT = {"waiting", "paused", "lost", "failed"}


class Lab:
    """The runs of the folder that the settings name.

    Args:
        settings: settings in force; they name the folder of runs, the cache and the executor.
        devices: devices that the queue serves, one run on each; None takes those found when they are first needed.
        worker: the command that carries a run out here; the run's folder is its last argument. Default: as the setting
            `executor` says.
        options: options of the executor, which win over those of its table in the settings.

    Attributes:
        executor: where runs are carried out if not on this machine; None for this machine.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        devices: Sequence[Device] | None = None,
        worker: Sequence[str] = (),
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.executor = None if worker else choice.find(settings, options=options)
        self.settings = settings
        self.folder = settings.lab
        self._given_devices = devices
        self._devices = tuple(devices) if devices is not None else ()
        local = command_wrappers.LOCAL if self.executor is not None else settings.executor
        self.worker = tuple(worker) or command_wrappers.worker_command(local)
        self._supervisor: Worker | None = None  # kept, so that it is reaped when it ends

    def plan_settings(self, device: str = "") -> Settings:
        """Return the settings to make a plan with: those of the lab, with the devices of its executor's machines.

        Args:
            device: device in place of that of the settings.

        Raises:
            UsageError: its jobs do not get such devices.
        """
        settings, executor = self.settings, self.executor
        settings = msgspec.structs.replace(settings, device=device) if device else settings
        if executor is None:
            return settings
        kind = executor.device(settings.device)
        several = executor.devices(settings.devices, kind)
        count = max(1, len(several_devices.parse_devices(several, kind, None)))
        threads = executor.threads(settings.threads, count)
        return msgspec.structs.replace(settings, device=kind, devices=several, threads=threads)

    def start(self, plan: Plan, recipe_toml: bytes) -> tuple[RunFolder, Worker]:
        """Make a run of the plan and start its worker; the worker outlives this process.

        Raises:
            UsageError: this machine has no such device.
            RunFailedError: the lab cannot be written to.
        """
        if self.settings.executor == command_wrappers.LOCAL:
            self.check_plan(plan)
        folder = run_store.create(self.folder, plan, recipe_toml, datetime.now(UTC))
        return folder, local_launcher.start(plan, folder, command=self.worker)

    def prepare(self, plan: Plan, recipe_toml: bytes) -> tuple[RunFolder, str]:
        """Make a run of the plan, and return it with the shell command that carries it out.

        The command works on every machine that has this Python and sees the lab and the data under the same paths,
        such as the node of a cluster. The devices of this machine do not matter.

        Raises:
            RunFailedError: the lab cannot be written to.
        """
        folder = run_store.create(self.folder, plan, recipe_toml, datetime.now(UTC))
        settings = [f"{name}={value}" for name, value in process_environment.pinned_environment(plan.threads).items()]
        return folder, shlex.join(["env", *settings, *self.worker, str(folder.path.resolve())])

    def resume(self, folder: RunFolder, devices_given: str = "") -> Worker:
        """Start a worker here on a run that is not finished; it continues where the last one stopped.

        Args:
            folder: folder of the run.
            devices_given: devices in place of the plan's, as in `--devices`; "" for the plan's.

        Raises:
            UsageError: it is finished, or running, or these devices cannot share its steps.
            DamagedError: its plan cannot be read.
        """
        self.check_resumable(folder)
        plan = run_store.load_plan(folder)
        command = self.worker
        if devices_given:
            names = several_devices.parse_devices(devices_given, plan.device.partition(":")[0], self.devices())
            several_devices.check_division(plan.recipe, plan.step_shards, len(names))
            if self.settings.executor != command_wrappers.LOCAL:
                what = f"the executor '{self.settings.executor}' starts the devices of the plan"
                raise UsageError(what, where="--devices", hint="omit --devices", code="options-conflict")
            plan = msgspec.structs.replace(plan, device=names[0], devices=names)
            command = (*command, "--devices", ",".join(names))
        self.unqueue(folder)
        disk.remove(folder.job)  # from now on this machine carries it out
        job_records.mark_submission(folder, None)
        return local_launcher.start(plan, folder, command=command)

    def check_resumable(self, folder: RunFolder) -> None:
        """Check that a run is neither finished nor at work, nor waits for another machine.

        Raises:
            UsageError: it is.
        """
        status = self.status(folder)
        state = status.state
        if status.job is not None and state == "queued":
            hint = f"cerank stop {run_store.short_name(folder)} cancels it"
            what = f"the run waits for {status.job.text}"
            raise UsageError(what, where=run_store.title(folder), hint=hint, code="run-state")
        if state in {"running", "stopping"}:
            name = run_store.short_name(folder)
            hint = f"cerank stop {name}"
            if state == "stopping":
                hint = f"it stops after its current step; cerank stop {name} --wait returns then, and it can be resumed"
            raise UsageError(f"the run is already {state}", where=run_store.title(folder), hint=hint, code="run-state")
        if state == "finished":
            what = "the run is finished, so it cannot be resumed"
            raise UsageError(what, where=run_store.title(folder), code="run-state")

    # jobs on other machines

    def submit(self, folders: Sequence[RunFolder], executor: JobExecutor | None = None) -> list[JobRecord]:
        """Submit runs that no worker is at to an executor, with each stage that they share as a job of its own.

        Args:
            folders: their folders.
            executor: where; default: the lab's.

        Raises:
            UsageError: the executor refuses, or a run is finished or at work.
            RunFailedError: the lab cannot be written to.
        """
        from cerank.executors.submissions import Submission  # imports the readers of datasets

        chosen = executor or self.executor
        if chosen is None:
            raise UsageError("this machine takes no jobs", where="executor", code="no-executor")
        for folder in folders:
            state = self.status(folder).state
            if state not in _CAN_WAIT:
                what = f"the run is {state}, so it cannot be submitted"
                raise UsageError(what, where=run_store.title(folder), code="run-state")
        return Submission(chosen, folders).submit()

    def start_elsewhere(self, plan: Plan, recipe_toml: bytes) -> tuple[RunFolder, JobRecord]:
        """Make a run of the plan and submit it; if that is refused, there is no run.

        Raises:
            UsageError: the executor refuses.
            RunFailedError: the lab cannot be written to.
        """
        folder = run_store.create(self.folder, plan, recipe_toml, datetime.now(UTC))
        try:
            (record,) = self.submit([folder])
        except BaseException:
            run_store.remove(folder)
            raise
        return folder, record

    def executor_of(self, folder: RunFolder, options: Mapping[str, object] | None = None) -> JobExecutor | None:
        """Return where the run's last job was submitted to, with other `options` if given; None where it never was.

        Raises:
            UsageError: it was a plugin's, which is gone.
        """
        record = job_records.load(folder)
        return choice.of_job(record, options) if record is not None else None

    def refresh_jobs(self, *, force: bool = False) -> None:
        """Ask executors how the lab's jobs stand, if the last answer is old enough; the new one is kept in the lab."""
        polling.refresh(self.folder, force=force)

    def cancel_job(self, folder: RunFolder) -> bool:
        """Cancel a run's job that waits or runs; return whether there was one.

        A job whose worker is at the run is left to end by itself, with a checkpoint: the caller asks the worker to
        stop. A job of an executor that cannot be asked any more counts as canceled: if it starts all the same, it ends
        before it begins the run.

        Raises:
            UsageError: the executor refuses.
        """
        record = job_records.load(folder)
        if record is None or record.is_canceled or folder.done.exists():
            return False
        self.refresh_jobs(force=True)
        status = self.status(folder)
        answer = job_records.answer_of(self.folder, record.executor)
        live = [job for job in record.ids if job and (job not in answer.states or answer.states[job].is_live)]
        if record.kind == "command":
            live = [record.id] if record.id and status.state not in {"paused", "failed"} else []
        job_records.save(folder, msgspec.structs.replace(record, is_canceled=True))
        others = [other for other in run_store.folders(self.folder) if other.name != folder.name]
        shared = {  # one job may carry out several runs, and is left to the others
            job
            for other, own in job_records.records(others)
            if own.executor == record.executor and not own.is_canceled and not other.done.exists()
            for job in own.ids
        }
        at_work = job_records.newest(record, answer).id if status.state in {"running", "stopping"} else ""
        try:
            choice.of_job(record).cancel([job for job in live if job != at_work and job not in shared])
        except CerankError:
            if not answer.error:
                job_records.save(folder, record)  # it is not canceled, and the user may try again
                raise
        else:
            self.refresh_jobs(force=True)
        return bool(live)

    def why_unanswered(self, folder: RunFolder) -> str:
        """Return why the executor of a run's job did not answer when it was asked last; "" where it did."""
        record = job_records.load(folder)
        return job_records.answer_of(self.folder, record.executor).error if record is not None else ""

    def runs_waiting_for(self, folder: RunFolder) -> list[RunFolder]:
        """Return the runs whose jobs wait for a stage that a job of this run was to finish, and has not."""
        from cerank.executors import submissions  # imports the readers of datasets

        return submissions.runs_waiting_for(folder)

    def listed(self) -> list[RunRow]:
        """Return a row for each run of the lab, the oldest first; a broken one says why."""
        self.refresh_jobs()
        return run_store.list_runs(self.folder, datetime.now(UTC))

    def find(self, text: str) -> RunFolder:
        """Return the run the user means by its name, its label, or a part of its name that fits no other.

        Raises:
            UsageError: none, or several.
        """
        return run_store.find(self.folder, text)

    def status(self, folder: RunFolder) -> Status:
        """Return how a run stands, computed from its files."""
        return run_store.status(folder, datetime.now(UTC))

    def stop(self, folder: RunFolder) -> bool:
        """Ask a run's worker to stop at its next step; whether a signal woke it, too. A queued run leaves the queue.

        Raises:
            UsageError: nothing is running there, and it is not queued.
        """
        was_submitted = self.cancel_job(folder)
        state = self.status(folder).state
        if was_submitted and state not in {"running", "stopping"}:
            run_store.request_stop(folder)  # it may be about to begin
            return False
        if state == "queued":
            self.unqueue(folder)
            if not self._is_starting(folder):
                return False
            state = self.status(folder).state
        if state not in {"running", "stopping"}:
            what = f"the run is {state}, so there is nothing to stop"
            raise UsageError(what, where=run_store.title(folder), code="run-state")
        return run_store.request_stop(folder)

    def remove(self, folder: RunFolder) -> None:
        """Delete a run's directory, its job, and its place in the queue; refused while a worker holds it."""
        if not lease.is_held(folder.lease):
            with contextlib.suppress(CerankError):  # the cluster may be away; a job without its run ends at once
                self.cancel_job(folder)
        run_store.remove(folder)
        self.unqueue(folder)

    # the trash

    @property
    def trash_folder(self) -> Path:
        """Return the folder of deleted runs, from which they can be restored."""
        return self.folder / "trash"

    def trash(self, folder: RunFolder) -> None:
        """Move a run to the trash, where it stays for 7 days; refused while a worker holds it.

        Raises:
            HeldError: a worker holds it.
            RunFailedError: it is gone already, or may not be moved.
        """
        disk.make_folder(self.trash_folder)
        if not lease.is_held(folder.lease):
            with contextlib.suppress(CerankError):
                self.cancel_job(folder)
        with lease.Lease.take(folder.lease):
            target = self.trash_folder / folder.name
            disk.rename(folder.path, target)
        os.utime(target)  # from now on its days in the trash count
        self.unqueue(folder)
        self.empty_trash(TRASH_SECONDS)

    def restore(self, name: str) -> RunFolder:
        """Bring a run back from the trash, by its id.

        Raises:
            UsageError: it is not there.
            RunFailedError: it may not be moved.
        """
        source, folder = self.trash_folder / name, RunFolder(runs_folder(self.folder) / name)
        if not source.is_dir():
            raise UsageError("the run is not in the trash", where=name)
        disk.rename(source, folder.path)
        return folder

    def empty_trash(self, seconds: float) -> None:
        """Remove runs for good that have been in the trash for longer."""
        if not self.trash_folder.is_dir():
            return
        for path in self.trash_folder.iterdir():
            if path.stat().st_mtime < time.time() - seconds:
                disk.remove_tree(path)

    # the queue

    def create(self, plan: Plan, recipe_toml: bytes) -> RunFolder:
        """Make a run of the plan that waits until it is queued or resumed.

        Raises:
            UsageError: this machine has no such device.
            RunFailedError: the lab cannot be written to.
        """
        self.check_plan(plan)
        return run_store.create(self.folder, plan, recipe_toml, datetime.now(UTC))

    def enqueue(self, plan: Plan, recipe_toml: bytes) -> RunFolder:
        """Make a run of the plan that starts by itself once a device is free and those before it were started.

        Raises:
            UsageError: this machine has no such device.
            DamagedError: the queue cannot be read; no run was made.
            RunFailedError: the lab cannot be written to.
        """
        if self.executor is not None:
            return self.start_elsewhere(plan, recipe_toml)[0]
        self.check_plan(plan)
        queue.entries(self.folder)
        folder = run_store.create(self.folder, plan, recipe_toml, datetime.now(UTC))
        queue.add(folder, datetime.now(UTC))
        self.start_queue()
        return folder

    def resume_queued(self, folder: RunFolder) -> None:
        """Put a run that waits, or was paused, lost or failed, at the end of the queue, or submit it again.

        It is submitted to the lab's executor, or to the one that its last job was submitted to.

        Raises:
            UsageError: it is running, finished, damaged or queued already, or needs a device that is not here.
            DamagedError: its plan or the queue cannot be read.
        """
        state = self.status(folder).state
        if state not in _CAN_WAIT:
            what = f"the run is {state}, so it cannot be queued"
            raise UsageError(what, where=run_store.title(folder), code="run-state")
        executor = self.executor or self.executor_of(folder)
        if executor is not None:
            self.submit([folder], executor)
        else:
            self.queue_here([folder])

    def queue_here(self, folders: Sequence[RunFolder]) -> None:
        """Put runs that no worker is at at the end of this machine's queue, whatever carried them out before.

        Raises:
            UsageError: one needs a device that is not here; then none is queued.
            DamagedError: a plan or the queue cannot be read.
        """
        for folder in folders:
            self.check_plan(run_store.load_plan(folder))
        for folder in folders:
            disk.remove(folder.job)  # from now on this machine carries it out
            job_records.mark_submission(folder, None)
            queue.add(folder, datetime.now(UTC))
        if folders:
            self.start_queue()

    def queued(self) -> list[RunFolder]:
        """Return the queued runs, the next to start first.

        Raises:
            DamagedError: the queue cannot be read.
        """
        return queue_status.queued(self.folder, datetime.now(UTC))

    def move(self, folder: RunFolder, place: int) -> None:
        """Give a queued run another place, from 1; one beyond an end is that end.

        Raises:
            UsageError: it is not queued.
        """
        queue.move(folder, place)

    def unqueue(self, folder: RunFolder) -> None:
        """Take a run out of the queue, as far as it is in it; a worker that is already running continues."""
        queue.remove(self.folder, [folder.name])

    def queue_state(self) -> QueueState:
        """Return whether something serves the queue, how many wait, and which run is on which device.

        Made to be polled.
        """
        if self._supervisor is not None and self._supervisor.poll() is not None:
            self._supervisor = None
        return queue_status.state_of(self.folder, self.devices(), datetime.now(UTC))

    def start_queue(self) -> None:
        """Make sure that a supervisor serves the queue; it continues on its own after this process has ended.

        Raises:
            RunFailedError: the lab cannot be written to.
        """
        started = supervisor.start(self.folder, self.worker, self._given_devices or ())
        self._supervisor = started or self._supervisor

    def devices(self) -> tuple[Device, ...]:
        """Return what runs can be queued for here.

        The first call may ask the GPU's driver, which takes up to a second.
        """
        if not self._devices:
            self._devices = devices.detect_devices(os.environ)
        return self._devices

    def check_plan(self, plan: Plan) -> None:
        """Check that this machine has the devices of a plan.

        Raises:
            UsageError: no run could start with them.
        """
        self.check_devices(",".join(plan.devices), plan.device)

    def check_devices(self, given: str, device: str) -> None:
        """Check that this machine has the devices that a run shall use.

        Args:
            given: as the setting `devices` has it; "" for a run on one.
            device: as the setting `device` has it.

        Raises:
            UsageError: no run could start with them.
        """
        self.check_device(device)
        if given:
            several_devices.parse_devices(given, devices.resolve_device(device), self.devices())

    def check_device(self, name: str) -> None:
        """Check that a run can use the device: any CPU, or a GPU that this machine and its torch have.

        What the machines of an executor have is not known here.

        Args:
            name: as in the settings or in a plan.

        Raises:
            UsageError: no run could start with it.
        """
        if name not in {"auto", "cpu"} and self.executor is None:  # asking for GPUs may take the driver a second
            devices.check_present(name, self.devices())
            if self.worker == local_launcher.WORKER:  # another worker may compute with another torch
                devices.check_torch(name)

    def _is_starting(self, folder: RunFolder) -> bool:
        """Return whether a worker was just given the run: then returns once it heeds requests, or has ended."""
        deadline = time.monotonic() + _STARTING
        while any(queue.run_on_device(self.folder, device.key) == folder.name for device in self.devices()):
            if self.status(folder).state == "running" or time.monotonic() > deadline:
                return True
            time.sleep(0.02)
        return False
