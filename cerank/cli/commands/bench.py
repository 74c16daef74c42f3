"""The command that measures the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from cerank.bench import benchmark
from cerank.bench.benchmark import Asked, Report
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, say
from cerank.text.safe_text import counted

_SPEED = (
    Column("work", "Work"),
    Column("precision", "Precision"),
    Column("who", "By"),
    Column("pairs_per_second", "Pairs/s", "number", 1),
    Column("lowest", "Lowest", "number", 1, priority=2),
    Column("highest", "Highest", "number", 1, priority=2),
    Column("of_peak", "Of peak", "percent", priority=1),
    Column("ratio", "cerank is", "number", 2),
)
_MACHINE = (Column("key", "What"), Column("value", "Is"))

Base = Annotated[str, typer.Option("--base", metavar="BASE", help="A name from `cerank bases`, hub id or folder.")]
Dataset = Annotated[
    str, typer.Option("--dataset", metavar="DATASET", help="Whose texts; left out: generated ones of usual length.")
]
First = Annotated[str, typer.Option("--first-stage", metavar="RUN", help="Its candidates.")]
Pairs = Annotated[int, typer.Option("--pairs", min=8, max=10**7, metavar="N", help="Pairs re-ranked in a repeat.")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, max=1000, metavar="N", help="Turns that each takes.")]
Steps = Annotated[
    int, typer.Option("--steps", min=1, max=10**6, metavar="N", help="Training steps in a repeat, 32 pairs each.")
]
Precision = Annotated[
    list[str] | None, typer.Option("--precision", metavar="PRECISION", help="fp32 or bf16; may be repeated: both.")
]
Alone = Annotated[bool, typer.Option("--alone", help="Leave sentence-transformers out, installed or not.")]


def bench(
    base: Base = "minilm",
    dataset: Dataset = "",
    first_stage: First = "bm25",
    pairs: Pairs = 200,
    repeats: Repeats = 3,
    steps: Steps = 2,
    precision: Precision = None,
    alone: Alone = False,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Measure this machine: re-ranked and trained pairs a second, beside sentence-transformers where it is installed.

    Takes a minute or two with the small base on a CPU. Each sits in a process of its own, set up as its user's would
    be, and figures are medians over repeats that take turns. The machine should have nothing else to do: threads that
    wait by spinning, the default of others, suffer most from company.
    """
    settings = settings_of(None, cache, device=device, threads=threads, form=form, json=json)
    asked = Asked(
        base=base,
        dataset=dataset,
        first_stage=first_stage,
        pairs=pairs,
        repeats=repeats,
        steps=steps,
        precisions=tuple(dict.fromkeys(precision or benchmark.PRECISIONS)),
        with_peer=not alone,
    )
    report = benchmark.measure(settings, asked, lambda what: say(f"measuring: {what}"))
    emit((_machine(report), _speed(report)), settings.format)


def _machine(report: Report) -> Table:
    rows = [
        ("device", report.device),
        ("threads", str(report.threads)),
        ("base", f"{report.base}, {report.pooling}"),
        ("texts", f"{counted(report.pairs, 'pair')} of {report.sample}, {report.tokens:.0f} tokens on average"),
        *((f"{kind} matrix products", f"{peak / 1e9:.0f} GFLOP/s") for kind, peak in report.peaks.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        *(("command", command) for command in report.commands),
    ]
    return Table("machine", _MACHINE, tuple(rows))


def _speed(report: Report) -> Table:
    rows = tuple(
        (one.work, one.precision, one.who, one.median, one.lowest, one.highest, one.of_peak, one.ratio)
        for one in report.figures
    )
    return Table("speed", _SPEED, rows, notes=("cerank is: so many times as fast", *report.notes))
