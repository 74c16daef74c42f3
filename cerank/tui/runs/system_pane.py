"""The machine at work: GPUs, processor, memory and the worker's process, now and over the last minutes."""

from __future__ import annotations

from collections import deque

import numpy as np
from textual.app import ComposeResult
from textual.containers import Grid
from textual.content import Content
from textual.widgets import Static

from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.system_usage import Machine, UsageSample
from cerank.tui.cells import content, joined, stacked
from cerank.tui.runs.plot import CurvePlot, Frame, PlotLine
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.theme import palette

_KEPT = 600  # samples, one a second
_GIB = 2**30


class SystemPane(RunPane):
    """Figures as bars, and two curves; sampled only while it is in front."""

    DEFAULT_CSS = """
    SystemPane #figures { height: auto; padding: 1; }
    SystemPane Grid { grid-size: 2 1; height: 1fr; min-height: 6; }
    """
    can_focus = True

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._machine: Machine | None = None
        self.samples: deque[UsageSample] = deque(maxlen=_KEPT)
        self._is_sampling = False

    def compose(self) -> ComposeResult:
        """Lay out bars above, curves below."""
        yield Static(id="figures")
        with Grid():
            yield CurvePlot(id="busy")
            yield CurvePlot(id="memory")

    def update_entry(self, entry: RunEntry) -> None:
        """Take a sample."""
        if self._is_sampling:
            return
        self._is_sampling = True
        machine = self._machine = self._machine or Machine(self.lab_app.lab.folder)
        folder = entry.folder if entry.is_live else None
        self.lab_app.run_in_thread(
            lambda: machine.sample(folder), self._have, node=self, group="sample", last=self._done
        )

    def _done(self) -> None:
        self._is_sampling = False

    def _have(self, sample: UsageSample) -> None:
        self.samples.append(sample)
        self.query_one("#figures", Static).update(stacked(*_figures(sample)))
        colors = palette(is_dark=self.app.current_theme.dark)
        cpu = [usage.cpu if usage.cpu is not None else np.nan for usage in self.samples]
        memory = [usage.memory / _GIB if usage.memory is not None else np.nan for usage in self.samples]
        most = max(sample.memory_total or 0, *(gpu.memory_total for gpu in sample.gpus[:1]), _GIB) / _GIB
        lines = [(f"cpu %{'  a GPU0 %' if sample.gpus else ''}", "#busy", [100 * share for share in cpu], 100.0)]
        lines.append((f"memory GiB{'  a GPU0' if sample.gpus else ''}", "#memory", memory, most))
        for title, name, values, top in lines:
            drawn = [_line(values, colors[0], "")]
            if sample.gpus:
                drawn.append(_line([_of_gpu(usage, name) for usage in self.samples], colors[1], "a"))
            self.query_one(name, CurvePlot).show(
                Frame(title=f"{title}, since this tab was opened", lines=tuple(drawn), bounds=(0.0, top))
            )


def _of_gpu(sample: UsageSample, name: str) -> float:
    if not sample.gpus:
        return float("nan")
    return 100 * sample.gpus[0].busy if name == "#busy" else sample.gpus[0].memory / _GIB


def _line(values: list[float], color: str, key: str) -> PlotLine:
    return PlotLine(np.arange(float(len(values))), np.array(values), color, key=key)


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
