"""The depths of the reported runs: a table and a picture for each run whose recipe names depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cerank.app.rankings import depth_report
from cerank.app.report import svg_plot
from cerank.app.report.report_data import Curve
from cerank.app.report.report_scope import ReportScope
from cerank.app.report.svg_plot import Panel, PlottedLine
from cerank.errors import MissingError
from cerank.runs import run_store
from cerank.text.table_data import Table

if TYPE_CHECKING:
    from cerank.evaluation.studies.depth_curve import DepthCurve, DepthStudy

_ACROSS = "candidates re-ranked for a query"


def of_scope(scope: ReportScope) -> tuple[tuple[Table, ...], tuple[Curve, ...]]:
    """Return a table and a picture of each run that was measured at several depths; nothing for other runs."""
    tables, pictures = [], []
    members = {member.folder.name: member for row in scope.rows for member in row.members}
    for member in members.values():
        try:
            study = depth_report.declared(member.folder, member.plan)
        except MissingError:  # the run has not come so far
            continue
        if study is None:
            continue
        name = run_store.short_name(member.folder)
        table = depth_report.table(study)
        tables.append(Table(f"depths-{name}", table.columns, table.rows, f"{name}: {table.title}", table.notes))
        pictures.append(Curve(name=f"depths-{name}", title=f"Depths of {name}", svg=svg_plot.svg(_panels(study))))
    return tuple(tables), tuple(pictures)


def _panels(study: DepthStudy) -> list[Panel]:
    """Return a panel of the mean over depth for each measure and condition, and one of the time where it is known."""
    panels, percent = [], f"{100 * study.comparison.terms.confidence:.4g} %"
    for key in dict.fromkeys((curve.measure, curve.condition) for curve in study.curves):
        curves = [curve for curve in study.curves if (curve.measure, curve.condition) == key]
        measure, condition = key
        lines = [_line(curve, [point.mean for point in curve.points], curve.system) for curve in curves]
        for curve in curves:
            if all(point.low is not None for point in curve.points):
                lines.append(
                    _line(curve, [point.low or 0.0 for point in curve.points], f"{curve.system}, {percent} interval")
                )
                lines.append(
                    _line(curve, [point.high or 0.0 for point in curve.points], f"{curve.system}, {percent} interval")
                )
        panels.append(Panel(f"{measure} on {condition} by depth", measure, tuple(lines), (), _ACROSS))
    timed = [curve for curve in study.curves if all(point.seconds is not None for point in curve.points)]
    if timed:
        lines = [_line(curve, [point.seconds or 0.0 for point in curve.points], curve.system) for curve in timed[:1]]
        panels.append(Panel("Seconds a query by depth (estimate)", "seconds", tuple(lines), (), _ACROSS))
    return panels


def _line(curve: DepthCurve, values: Sequence[float], label: str) -> PlottedLine:
    depths = np.array([float(point.depth) for point in curve.points])
    return PlottedLine(label, depths, np.array(values), has_dots="interval" not in label)
