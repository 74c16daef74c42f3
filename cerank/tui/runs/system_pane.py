"""The machine at work: GPUs, processor, memory and the worker's process, now and over the whole run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from textual.app import ComposeResult
from textual.containers import Grid
from textual.content import Content
from textual.widgets import Static

from cerank.app.run_views.curves import Floats
from cerank.app.run_views.rank_table import rank_table
from cerank.app.run_views.run_monitor import RunEntry
from cerank.core.metrics import UsageRow
from cerank.files.journal import Tail
from cerank.machine.system_usage import Machine, UsageSample
from cerank.text.table_data import Table
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.fitted_table import TableView
from cerank.tui.runs.plot import CurvePlot, Frame, PlotLine
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.theme import palette

_KEPT = 600  # samples taken by this tab, one a second
_MOST_POINTS = 2000  # of a curve; of longer histories every second, third, ... row is drawn
_GIB = 2**30


class SystemPane(RunPane):
    """Figures of this moment as bars, and two curves: over the whole run where its worker kept a record.

    A run on several devices has a table between them: what each process did since it began.
    """

    DEFAULT_CSS = """
    SystemPane #figures { height: auto; padding: 1; }
    SystemPane #devices { height: auto; max-height: 50%; }
    SystemPane #devices.-empty { display: none; }
    SystemPane Grid { grid-size: 2 1; height: 1fr; min-height: 6; }
    """
    can_focus = True

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._machine: Machine | None = None
        self._is_sampling = False
        self._history: Tail[UsageRow] | None = None
        self._rows: list[UsageRow] = []  # of the run, as its worker wrote them
        self._devices: Table | None = None  # as it is shown
        self.samples: deque[UsageRow] = deque(maxlen=_KEPT)  # taken here, for a run without a record

    def compose(self) -> ComposeResult:
        """Lay out bars above, curves below."""
        yield Static(id="figures")
        yield TableView(id="devices", classes="-empty")
        with Grid():
            yield CurvePlot(id="busy")
            yield CurvePlot(id="memory")

    def clear_entry(self) -> None:
        """Another run: its history from the start."""
        self._history = Tail(self.entry.folder.usage, UsageRow) if self.entry else None
        self._rows = []
        self._have_devices(None)

    def update_entry(self, entry: RunEntry) -> None:
        """Take a sample, and read what is new in the run's record."""
        if self._is_sampling:
            return
        self._is_sampling = True
        is_remote = self.lab_app.access.is_remote
        machine = self._machine = self._machine or Machine(self.lab_app.lab.folder)
        lease_file = entry.folder.lease if entry.is_live else None
        history = self._history

        def job() -> tuple[UsageSample, list[UsageRow], Table | None]:
            devices = rank_table(entry.folder, entry.plan) if entry.plan is not None else None
            return UsageSample() if is_remote else machine.sample(lease_file), history.new() if history else [], devices

        def have(read: tuple[UsageSample, list[UsageRow], Table | None]) -> None:
            if history is self._history:
                sample, rows, devices = read
                self._have(sample, rows)
                self._have_devices(devices)

        self.lab_app.run_in_thread(job, have, node=self, group="sample", last=self._done)

    def _done(self) -> None:
        self._is_sampling = False

    def _have_devices(self, table: Table | None) -> None:
        """Show what each process of the run did; nothing for a run in one process."""
        if table == self._devices:
            return
        self._devices = table
        view = self.query_one("#devices", TableView)
        view.set_class(table is None, "-empty")
        if table is not None:
            view.show(table, self.size.width)

    def on_resize(self) -> None:
        """Take columns away, or bring them back."""
        devices, self._devices = self._devices, None
        self._have_devices(devices)

    def _have(self, sample: UsageSample, rows: list[UsageRow]) -> None:
        self._rows += rows
        gpu = sample.gpus[0] if sample.gpus else None
        self.samples.append(
            UsageRow(
                time=datetime.now(UTC).isoformat(),
                cpu=sample.cpu,
                memory=sample.memory,
                memory_total=sample.memory_total,
                gpu=gpu.busy if gpu else None,
                gpu_memory=gpu.memory if gpu else None,
            )
        )
        self.query_one("#figures", Static).update(
            content("The lab's machine as the run's worker recorded it, every 15 seconds.", "dim")
            if self.lab_app.access.is_remote
            else stacked(*_figures(sample))
        )
        usages, since = (
            (self._rows, "over the run") if self._rows else (list(self.samples), "since this tab was opened")
        )
        usages = usages[:: 1 + len(usages) // _MOST_POINTS]
        times, unit = _times(usages)
        most = max(*(usage.memory_total or 0 for usage in usages), gpu.memory_total if gpu else 0, _GIB) / _GIB
        shares = [("cpu", _shares([usage.cpu for usage in usages]))]
        memories = [("memory", _gibs([usage.memory for usage in usages]))]
        worker = [usage.worker_memory for usage in usages]
        cores = sample.cores or 1
        if any(value is not None for value in worker):
            memories.append(("worker", _gibs(worker)))
            busy = [None if usage.worker_cores is None else usage.worker_cores / cores for usage in usages]
            shares.append(("worker", _shares(busy)))
        if any(usage.gpu is not None for usage in usages):
            shares.append(("GPU", _shares([usage.gpu for usage in usages])))
            memories.append(("GPU", _gibs([usage.gpu_memory for usage in usages])))
        colors = palette(is_dark=self.app.current_theme.dark)
        for title, name, series, top in (("%", "#busy", shares, 100.0), ("GiB", "#memory", memories, most)):
            keys = ["", *"abc"][: len(series)]
            lines = [
                PlotLine(times, values, colors[at % len(colors)], key=key)
                for at, (key, (_, values)) in enumerate(zip(keys, series, strict=True))
            ]
            legend = "  ".join(f"{key} {word}".strip() for key, (word, _) in zip(keys, series, strict=True))
            self.query_one(name, CurvePlot).show(
                Frame(title=f"{legend}, {title} {since}, in {unit}", lines=tuple(lines), bounds=(0.0, top))
            )


def _times(usages: Sequence[UsageRow]) -> tuple[Floats, str]:
    """Return when each row was written, counted from the first, and the unit: seconds, minutes or hours."""
    seconds = np.array([datetime.fromisoformat(usage.time).timestamp() for usage in usages])
    seconds = seconds - seconds[0]
    for size, unit in ((3 * 3600, "hours"), (180, "minutes")):
        if seconds[-1] >= size:
            return seconds / (3600 if unit == "hours" else 60), unit
    return seconds, "seconds"


def _shares(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else 100 * value for value in values])


def _gibs(values: Sequence[int | None]) -> Floats:
    return np.array([np.nan if value is None else value / _GIB for value in values])


def _figures(sample: UsageSample) -> list[Content]:
    rows = []
    for gpu in sample.gpus:
        more = f"{gpu.watts:.0f} W  {gpu.celsius:.0f} °C  {gpu.name}" if gpu.watts else gpu.name
        rows.append(_bar(f"GPU{gpu.index}", gpu.busy, more))
        rows.append(_bar("memory", gpu.memory / max(1, gpu.memory_total), _bytes(gpu.memory, gpu.memory_total)))
    if not sample.gpus:
        rows.append(
            joined((f"{'GPU':>8}  ", "dim"), ("none found; NVIDIA cards need: pip install 'cerank[gpu]'", "dim"))
        )
    if sample.cpu is None:
        rows.append(content("install psutil to see processor and memory", "dim"))
    else:
        load = "" if sample.load is None else f"{sample.cores} cores, load {sample.load:.1f}"
        rows.append(_bar("CPU", sample.cpu, load))
    if sample.memory is not None and sample.memory_total:
        rows.append(_bar("memory", sample.memory / sample.memory_total, _bytes(sample.memory, sample.memory_total)))
    if sample.disk_free is not None:
        rows.append(joined((f"{'disk':>8}  ", "dim"), f"{sample.disk_free / _GIB:,.0f} GiB free where the lab is"))
    if sample.work is not None:
        work = sample.work
        figures = f"pid {work.pid}, {work.cores:.1f} cores, {work.memory / _GIB:.1f} GiB"
        rows.append(joined((f"{'worker':>8}  ", "dim"), figures))
    return rows


def _bar(name: str, share: float, more: str) -> Content:
    filled = round(20 * min(max(share, 0.0), 1.0))
    text = f" {100 * share:3.0f} %  {more}"
    return joined((f"{name:>8}  ", "dim"), ("█" * filled, "$primary"), ("░" * (20 - filled), "dim"), text)


def _bytes(used: int, total: int) -> str:
    return f"{used / _GIB:.1f} of {total / _GIB:.1f} GiB"
