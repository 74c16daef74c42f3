"""The command that measures the machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cerank.bench import benchmark
from cerank.bench.benchmark import BenchReport, BenchRequest
from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.text.safe_text import counted

SPEED_COLUMNS = (
    Column("work", "Work"),
    Column("precision", "Precision"),
    Column("who", "By"),
    Column("pairs_per_second", "Pairs/s", "number", 1),
    Column("lowest", "Lowest", "number", 1, priority=2),
    Column("highest", "Highest", "number", 1, priority=2),
    Column("tokens_per_second", "Tokens/s", "number", 0, priority=1),
    Column("latency_p50", "100 docs, ms", "number", 1, priority=2),
    Column("latency_p95", "p95, ms", "number", 1, priority=3),
    Column("gpu_memory", "GPU MiB", "number", 0, priority=3),
    Column("joules", "J per 1,000", "number", 1, priority=3),
    Column("of_peak", "Of peak", "percent", priority=1),
    Column("ratio", "cerank is", "number", 2),
)
MACHINE_COLUMNS = (Column("key", "What"), Column("value", "Is"))

Base = Annotated[
    str,
    typer.Option(
        "--base", metavar="BASE", help="Base model: a name from `cerank bases`, a Hugging Face id, or a folder."
    ),
]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="Dataset whose texts are scored. Default: generated texts of typical length.",
    ),
]
First = Annotated[
    str,
    typer.Option("--first-stage", metavar="RUN", help="First stage of that dataset, whose candidates are re-ranked."),
]
Pairs = Annotated[
    int | None,
    typer.Option(
        "--pairs",
        min=8,
        max=10**7,
        metavar="N",
        help="Number of pairs to re-rank in each repetition. Default: 200, or 51200 on a GPU.",
    ),
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, max=1000, metavar="N", help="Number of repetitions.")]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        max=10**6,
        metavar="N",
        help="Number of training steps in each repetition. Default: 2 of 32 pairs, or 200 of 256 pairs on a GPU.",
    ),
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        "--precision", metavar="PRECISION", help="fp32 or bf16. May be repeated. Default: both, on a GPU bf16."
    ),
]
CerankOnly = Annotated[
    bool, typer.Option("--cerank-only", help="Do not measure sentence-transformers, even if it is installed.")
]
Publish = Annotated[
    Path | None,
    typer.Option(
        "--publish",
        metavar="FILE",
        help="Also write all figures, the machine, versions and date to this new file.",
    ),
]


def bench(
    base: Base = "minilm",
    dataset: Dataset = "",
    first_stage: First = "bm25",
    pairs: Pairs = None,
    repeats: Repeats = 3,
    steps: Steps = None,
    precision: Precision = None,
    cerank_only: CerankOnly = False,
    publish: Publish = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Measure how many pairs this machine re-ranks and trains per second, with cerank and with sentence-transformers.

    This takes a minute or two with the small base model on a CPU. Each library runs in its own process with its usual
    settings, on a GPU with the attention and batch size that is fastest. The two take turns, and the table shows
    medians over the repetitions. Nothing else should run on the machine meanwhile. sentence-transformers is measured
    only where it is installed.
    """
    settings = settings_of(None, cache, device=device, threads=threads, form=form, json=json)
    request = BenchRequest(
        base=base,
        dataset=dataset,
        first_stage=first_stage,
        pairs=pairs or 0,
        repeats=repeats,
        steps=steps or 0,
        precisions=tuple(dict.fromkeys(precision or ())),
        with_peer=not cerank_only,
    )
    report = benchmark.measure(settings, request, lambda what: info(f"measuring: {what}"))
    if publish is not None:
        benchmark.publish(report, publish, datetime.now(UTC))
    emit((_machine(report), _speed(report)), settings.format)


def _machine(report: BenchReport) -> Table:
    rows = [
        ("device", report.device),
        ("threads", str(report.threads)),
        ("base", f"{report.base}, {report.pooling}"),
        ("texts", f"{counted(report.pairs, 'pair')} of {report.sample}, {report.tokens:.0f} tokens on average"),
        *((f"{kind} matrix products", f"{peak / 1e9:.0f} GFLOP/s") for kind, peak in report.peaks.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        *(("command", command) for command in report.commands),
    ]
    return Table("machine", MACHINE_COLUMNS, tuple(rows))


def _speed(report: BenchReport) -> Table:
    rows = tuple(
        (
            figure.work,
            figure.precision,
            figure.who,
            figure.median,
            figure.lowest,
            figure.highest,
            figure.tokens,
            1000 * figure.latency[0] if figure.latency else None,
            1000 * figure.latency[1] if figure.latency else None,
            figure.gpu_memory / 2**20 if figure.gpu_memory else None,
            figure.joules,
            figure.of_peak,
            figure.ratio,
        )
        for figure in report.figures
    )
    return Table(
        "speed",
        SPEED_COLUMNS,
        rows,
        notes=("cerank is: its speed divided by the speed of the other library", *report.notes),
    )
