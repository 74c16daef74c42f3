"""The curves of the reported runs as pictures: loss and validation, several runs overlaid, stages marked.

Invariant: what is drawn are the runs' readings; smoothing is said in the title. NumPy is needed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cerank.app.report import svg_plot
from cerank.app.report.report_data import Curve
from cerank.app.report.report_scope import ReportScope
from cerank.app.report.svg_plot import Panel, PlottedLine
from cerank.app.run_views import curves
from cerank.app.run_views.curves import Columns, Curves, Floats
from cerank.runs.layout import RunFolder, plain_name

_TOGETHER = len(svg_plot.COLORS)  # runs in one picture
_POINTS = 600  # of a line, at most
_SMOOTHING = ((200, 0.9), (2000, 0.98), (20_000, 0.995))  # from so many steps on, this weight of the past


class _Drawn:
    """One run's label, readings and stages."""

    def __init__(self, label: str, folder: RunFolder, chain: Sequence[str]) -> None:
        self.label, self.chain = label, tuple(chain)
        reading = Curves(folder)
        while reading.read():
            pass
        self.columns: Columns = reading.columns


def pictures(report_scope: ReportScope) -> tuple[Curve, ...]:
    """Return a picture for each base, or each part of a base with many runs; none where nothing was trained yet."""
    groups: dict[str, dict[str, _Drawn]] = {}
    for row in report_scope.rows:
        for member in row.members:
            seed = f", seed {member.plan.recipe.seed}" if len(row.members) > 1 else ""
            drawn = _Drawn(row.model.label + seed, member.folder, member.plan.recipe.chain)
            if row.model.base and len(drawn.columns.steps):  # a baseline's row is of no training
                groups.setdefault(row.model.base, {}).setdefault(member.folder.name, drawn)
    out = []
    for base, each in groups.items():
        several = list(each.values())
        for start in range(0, len(several), _TOGETHER):
            part = several[start : start + _TOGETHER]
            number = f"-{start // _TOGETHER + 1}" if len(several) > _TOGETHER else ""
            name = f"curves-{plain_name(base, 40)}{number}"
            out.append(
                Curve(name=name, title=_title(base, start, part, len(several)), svg=svg_plot.svg(_panels(base, part)))
            )
    return tuple(out)


def _title(base: str, start: int, part: Sequence[_Drawn], all_runs: int) -> str:
    """Return what a picture shows, and which of the base's runs where they fill several."""
    some = "" if len(part) == all_runs else f", runs {start + 1} to {start + len(part)} of {all_runs}"
    if len(part) == 1 < all_runs:
        some = f", run {start + 1} of {all_runs}"
    return f"Training of {base}{some}"


def _panels(base: str, runs: Sequence[_Drawn]) -> list[Panel]:
    steps = max(len(run.columns.steps) for run in runs)
    weight = max((weight for least, weight in _SMOOTHING if steps >= least), default=0.0)
    how = f", smoothed (weight {weight:g} of the past), as read behind it" if weight else ""
    marks = _boundaries(runs)
    panels = [Panel(f"Training loss of {base}{how}", "loss", tuple(_loss(run, weight) for run in runs), marks)]
    for measure in _measures(runs):
        lines = tuple(line for run in runs if (line := _validation(run, measure)))
        panels.append(Panel(f"{measure} on validation", measure, lines, marks))
    return panels


def _loss(run: _Drawn, weight: float) -> PlottedLine:
    """Return the run's loss, each stage a line of its own, for another loss has another scale."""
    steps, values = run.columns.steps, run.columns.values["loss"]
    edges = sorted(
        {0, len(steps), *(int(np.searchsorted(steps, boundary.at, "right")) for boundary in run.columns.boundaries)}
    )
    smooth = values
    if weight:
        last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
        smooth = curves.smoothed(np.nan_to_num(values[last]), weight, edges)  # a step without a loss repeats the last
    line = _parted(steps, smooth, edges)
    return PlottedLine(run.label, *line, raw=_parted(steps, values, edges)) if weight else PlottedLine(run.label, *line)


def _parted(steps: Floats, values: Floats, edges: Sequence[int]) -> tuple[Floats, Floats]:
    """Return the line with a gap at each edge."""
    gap = np.array([np.nan])
    parts = [_fewer(steps[low:high], values[low:high]) for low, high in itertools.pairwise(edges)]
    across = [piece for xs, _ in parts for piece in (xs, xs[-1:])]
    return np.concatenate(across), np.concatenate([piece for _, ys in parts for piece in (ys, gap)])


def _fewer(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the line by its least and largest values in as many parts as can be seen."""
    if len(steps) <= _POINTS:
        return steps, values
    count = _POINTS // 2
    low, high = float(steps[0]), float(steps[-1])
    lows, highs = curves.thinned(steps, values, low, high, count)
    centers = low + (high - low) / count * (np.arange(count) + 0.5)
    return np.repeat(centers, 2), np.column_stack([lows, highs]).reshape(-1)


def _measures(runs: Sequence[_Drawn]) -> list[str]:
    """Return the measures of the validations, each once; two pictures of them are enough."""
    names = dict.fromkeys(name for run in runs for _, row in run.columns.validations for name in row.measures)
    return list(names)[:2]


def _validation(run: _Drawn, measure: str) -> PlottedLine | None:
    points = [(at, row.measures[measure]) for at, row in run.columns.validations if measure in row.measures]
    if not points:
        return None
    steps, values = np.array(points).T
    return PlottedLine(run.label, steps, values, has_dots=True)


def _boundaries(runs: Sequence[_Drawn]) -> tuple[tuple[float, str], ...]:
    """Return where stages start, each place once with the names of all stages that start there."""
    names_at: dict[float, dict[str, None]] = {}
    for run in runs:
        for boundary in run.columns.boundaries:
            name = run.chain[boundary.stage] if boundary.stage < len(run.chain) else "?"
            names_at.setdefault(float(boundary.at), {})[name] = None
    return tuple((at, ", ".join(names)) for at, names in sorted(names_at.items()))
