"""Commands that make a teacher's rankings and judge them."""

from __future__ import annotations

import contextlib
import gzip
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cerank import recipes
from cerank.app.teaching import teach_options as teaching
from cerank.cli import options
from cerank.cli.command_class import CommandGroup, CommandLine
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import meta_of_comparison
from cerank.cli.output import Column, Table, emit, info, write_output
from cerank.cli.progress_messages import ProgressMessages
from cerank.errors import ExitCode, UsageError
from cerank.files import disk
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.teaching.check_teacher import TeacherCheck
    from cerank.app.teaching.model_labels import ModelLabels
    from cerank.teachers.make import MadeTeacher
    from cerank.teachers.requests import Hooks, TeachRequest
    from cerank.teachers.work import TeachingProgress


class _MakesByDefault(CommandGroup):
    """`cerank teach NAME` is `cerank teach make NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


teach_app = CommandLine(
    cls=_MakesByDefault,
    no_args_is_help=True,
    help="Make the rankings of a teacher that a recipe declares in [teachers.NAME], and judge them.",
)

_COST, _WHAT = "Cost", "What is ranked"
_LINE_SECONDS = 5.0

Name = Annotated[str, typer.Argument(metavar="NAME", help="Teacher: a name in [teachers] of the recipe.")]
Recipe = Annotated[
    str,
    typer.Option("--recipe", "-r", metavar="RECIPE", help="Recipe that declares the teacher: a .toml file or a name."),
]
Queries = Annotated[
    str,
    typer.Option(
        "--queries",
        metavar="DATASET",
        help="Dataset, or a part such as pydocs/train[:100], whose queries are ranked. Default: what the stage that "
        "the teacher teaches trains on.",
        rich_help_panel=_WHAT,
    ),
]
FirstStage = Annotated[
    str,
    typer.Option(
        "--first-stage",
        metavar="RUN",
        help="First stage whose candidates are ranked. Default: the recipe's.",
        rich_help_panel=_WHAT,
    ),
]
Depth = Annotated[
    int,
    typer.Option(
        "--depth",
        metavar="N",
        min=0,
        help="Number of candidates per query. Default: the teacher's.",
        rich_help_panel=_WHAT,
    ),
]
MaxCost = Annotated[
    float,
    typer.Option(
        "--max-cost",
        metavar="MONEY",
        min=0.0,
        help="Stop before spending more than this; needs a price table.",
        rich_help_panel=_COST,
    ),
]
MaxCalls = Annotated[
    int,
    typer.Option(
        "--max-calls",
        metavar="N",
        min=0,
        help="Largest number of calls; the work stops before more.",
        rich_help_panel=_COST,
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens",
        metavar="N",
        min=0,
        help="Largest number of tokens, of prompts and answers together; the work stops before more.",
        rich_help_panel=_COST,
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help='Price table: [models."NAME"] with input and output, the price of a million tokens, and a date.',
        rich_help_panel=_COST,
    ),
]


@teach_app.command("make")
def make(
    name: Name,
    recipe: Recipe,
    queries: Queries = "",
    first_stage: FirstStage = "",
    depth: Depth = 0,
    dry_run: options.EstimateCalls = False,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the first prompt, filled in, and make no call.")
    ] = False,
    retry_failed: options.RetryFailed = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the ranking to this TREC run file, too."),
    ] = None,
    max_cost: MaxCost = 0.0,
    max_calls: MaxCalls = 0,
    max_tokens: MaxTokens = 0,
    prices: Prices = None,
    set_: options.Set = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Rank the candidates of queries by a teacher; calls that were answered before are not made again.

    The lab keeps every answer, and the ranking with everything about its making; its path is printed. Ctrl-C waits for
    the calls that are out, and the same command continues. Exits with 75 if a cap or a signal stopped it.
    """
    settings = settings_of(lab, cache, device, threads, form, json)
    loaded = recipes.load(recipe, set_ or ()).recipe
    request = teaching.request_of(
        loaded,
        name,
        settings,
        teaching.TeachOptions(
            queries=queries,
            first_stage=first_stage,
            depth=depth,
            max_cost=max_cost,
            max_calls=max_calls,
            max_tokens=max_tokens,
            prices=prices,
            retry_failed=retry_failed,
        ),
    )
    if show_prompt:
        write_output("\n".join(f"--- {role}\n{text}" for role, text in teaching.filled_prompt(request)) + "\n")
        return
    if dry_run:
        from cerank.app.teaching import planned_teaching
        from cerank.teachers.estimate import estimate

        planned = [planned_teaching.PlannedTeaching(use="", estimate=each) for each in estimate(request)]
        emit(planned_teaching.table(planned, "Nothing was asked"), settings.format)
        return
    if output is not None:
        _check_output(output)
    from cerank.teachers.make import make as make_rankings

    with hooks_of(request) as hooks:
        made = make_rankings(request, hooks)
    if output is not None:
        _write_copy(made, output)
    _report(made, len(request.queries))
    if made.reports:
        write_output(f"{made.folder / 'ranking.run.gz'}\n")
    if made.stopped:
        info(f"stopped: {made.stopped}; the same command continues")
        raise typer.Exit(ExitCode.PAUSED)


def _progress_printer(total: int) -> Callable[[TeachingProgress], object]:
    """Return a function that prints the progress now and then."""
    messages = ProgressMessages(_LINE_SECONDS, is_first_printed=True)

    def tell(progress: TeachingProgress) -> None:
        spent = f", {progress.cost:.2f} spent" if progress.cost is not None else ""
        failed = f", {progress.failed} failed" if progress.failed else ""
        tokens = progress.usage.input_tokens + progress.usage.output_tokens
        messages.show(
            f"{progress.queries} of {counted(total, 'query')}{failed}; {counted(progress.asked, 'call')}, "
            f"{progress.reused} reused; {tokens:,} tokens{spent}"
        )

    return tell


@contextlib.contextmanager
def hooks_of(request: TeachRequest, total: int = 0) -> Iterator[Hooks]:
    """Return hooks that print the progress and stop the work at SIGINT or SIGTERM, once pending calls are answered."""
    from cerank.teachers.requests import Hooks

    reason = [""]

    def stop(number: int, _frame: FrameType | None) -> None:
        if reason[0] and number == signal.SIGINT:
            raise KeyboardInterrupt
        reason[0] = signal.Signals(number).name
        info("stopping as soon as pending calls are answered; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield Hooks(progress=_progress_printer(total or len(request.queries)), should_stop=lambda: reason[0], tell=info)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_copy(made: MadeTeacher, output: Path) -> None:
    """Write the ranking and its provenance where the user wants them."""
    packed = (made.folder / "ranking.run.gz").read_bytes()
    disk.write(output.resolve(), packed if output.suffix == ".gz" else gzip.decompress(packed))
    disk.write(output.resolve().with_name(f"{output.name}.teacher.json"), (made.folder / "teacher.json").read_bytes())


def _check_output(output: Path) -> None:
    """Reject a file that could not be written after hours of work."""
    if not output.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(output))
    if output.is_dir():
        raise UsageError("a folder, not a file to write", where=str(output))


_MANY_UNCHANGED = 0.5  # share of answers


def _report(made: MadeTeacher, total: int) -> None:
    """Say on stderr what was made and what was wrong with answers.

    Args:
        made: rankings that were made now or before.
        total: number of queries that were asked for.
    """
    provenance = made.provenance
    info(f"{counted(len(made.ranking), 'query')} ranked; {counted(made.asked, 'call')} made, {made.reused} reused")
    without = total - len(made.reports)
    if without and not made.stopped:
        info(f"{counted(without, 'query')} not ranked, because the first stage has no candidate with a text for them")
    if provenance.windows and provenance.unchanged_windows > _MANY_UNCHANGED * provenance.windows:
        info(
            f"warning: {provenance.unchanged_windows} of {counted(provenance.windows, 'answer')} gave the order that "
            f"was shown; a model that does not read its prompt, or a broken server, does that"
        )
    repairs = provenance.repairs
    if repairs.repaired:
        info(
            f"{repairs.repaired} of {counted(provenance.windows, 'answer')} repaired: {repairs.missing} passages "
            f"missing, {repairs.repeated} repeated, {repairs.out_of_range} out of range"
        )
    for reason, count in provenance.failed.items():
        names = [report.query for report in made.reports.values() if report.failure == reason]
        info(f"{counted(count, 'query')} failed ({reason}): {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")


@teach_app.command("check")
def check(
    name: Name,
    recipe: Recipe,
    queries: Annotated[
        str,
        typer.Option(
            "--queries",
            metavar="DATASET",
            help="Dataset with labels, or a part of one. Default: the recipe's validation queries.",
            rich_help_panel=_WHAT,
        ),
    ] = "",
    first_stage: FirstStage = "",
    depth: Depth = 0,
    measure: options.Measure = None,
    bias_queries: Annotated[
        int,
        typer.Option(
            "--bias-queries",
            metavar="N",
            min=0,
            help="Queries whose first window is shown in three orders, and once more, to see whether the order of "
            "passages or chance decides; 0 leaves it out.",
        ),
    ] = 20,
    max_cost: MaxCost = 0.0,
    max_calls: MaxCalls = 0,
    max_tokens: MaxTokens = 0,
    prices: Prices = None,
    set_: options.Set = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Judge a teacher on labeled queries: against the first stage with a verdict, position bias, consistency, repairs.

    What is missing of its rankings is made. Exits with 1 if the verdict is that it ranks worse than the first stage.
    """
    from cerank.app.teaching import check_teacher
    from cerank.cli.tables import measured_tables

    settings = settings_of(lab, cache, device, threads, form, json)
    loaded = recipes.load(recipe, set_ or ()).recipe
    request = teaching.request_of(
        loaded,
        name,
        settings,
        teaching.TeachOptions(
            queries=queries or loaded.data.validation,
            first_stage=first_stage,
            depth=depth,
            max_cost=max_cost,
            max_calls=max_calls,
            max_tokens=max_tokens,
            prices=prices,
        ),
    )
    with hooks_of(request) as hooks:
        result = check_teacher.check(
            settings, request, hooks, measures=tuple(measure or loaded.evaluate.measures[:1]), bias_queries=bias_queries
        )
    emit(
        [measured_tables.comparison_table(result.comparison, settings.format), _check_table(result)],
        settings.format,
        meta=meta_of_comparison(result.comparison),
    )
    measured_tables.print_footnotes(result.comparison, settings.format)
    for warning in result.warnings:
        info(f"warning: {warning}")
    if result.is_worse:
        raise typer.Exit(ExitCode.FAILED)


_CHECK = (Column("key", "of the teacher"), Column("value", "is"))


def _check_table(result: TeacherCheck) -> Table:
    rows: list[tuple[str, str]] = [
        ("queries ranked", f"{result.queries}"),
        ("queries failed", f"{result.failed}"),
        ("answers repaired", f"{result.repaired:.1%}"),
        ("windows unchanged", f"{result.unchanged:.1%}"),
    ]
    for label, stability in (("position bias", result.position_bias), ("consistency", result.consistency)):
        if stability is not None:
            rows += [
                (f"{label}: tau over {counted(stability.queries, 'query')}", f"{stability.tau:.3f}"),
                (f"{label}: first passages that differ", f"{stability.flips:.1%}"),
            ]
    rows += [(f"rank-biased overlap with {name}", f"{value:.3f}") for name, value in result.agreement.items()]
    return Table("check", _CHECK, tuple(rows), title=f"{result.name} on {result.dataset}")


@teach_app.command("labels")
def labels(
    name: Name,
    recipe: Recipe,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Qrels file to write.")],
    queries: Queries = "",
    first_stage: FirstStage = "",
    depth: Depth = 0,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="FILE",
            help="TREC run to order by the model's and by human labels; both orders are compared. May be repeated.",
        ),
    ] = None,
    measure: options.Measure = None,
    max_cost: MaxCost = 0.0,
    max_calls: MaxCalls = 0,
    max_tokens: MaxTokens = 0,
    prices: Prices = None,
    set_: options.Set = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Write the grades of a graded teacher as qrels, with their provenance beside them; compare them with people's.

    Labels of a model are no labels of people: what is measured with them says how well systems please that model.
    """
    from cerank.app.teaching import model_labels

    settings = settings_of(lab, cache, device, threads, form, json)
    loaded = recipes.load(recipe, set_ or ()).recipe
    request = teaching.request_of(
        loaded,
        name,
        settings,
        teaching.TeachOptions(
            queries=queries,
            first_stage=first_stage,
            depth=depth,
            max_cost=max_cost,
            max_calls=max_calls,
            max_tokens=max_tokens,
            prices=prices,
        ),
    )
    _check_output(output)
    with hooks_of(request) as hooks:
        result = model_labels.write_labels(
            request, hooks, output.resolve(), runs=tuple(runs or ()), measure=(measure or ["nDCG@10"])[0]
        )
    emit(_label_tables(result), settings.format)
    for warning in result.warnings:
        info(f"warning: {warning}")


_AGREEMENT = (Column("key", "of the labels"), Column("value", "is"))
_CONFUSION = (Column("people", "people's grade", "number", 0), Column("model", "the model's", "number", 0),
              Column("documents", "documents", "number", 0))  # fmt: skip


def _label_tables(result: ModelLabels) -> list[Table]:
    rows = [("queries", f"{result.queries}"), ("documents graded", f"{result.documents}")]
    facts = result.agreement
    if facts is not None:
        shown = (("kappa", facts.kappa), ("weighted kappa", facts.weighted_kappa), ("binary kappa", facts.binary_kappa))
        rows += [("documents that people graded, too", f"{facts.pairs}")]
        rows += [(label, "undefined" if value is None else f"{value:.3f}") for label, value in shown]
    if result.systems is not None:
        rows += [
            (f"tau over {counted(result.systems.systems, 'system')}", f"{result.systems.tau:.3f}"),
            ("tau_ap", f"{result.systems.tau_ap:.3f}"),
        ]
    tables = [Table("labels", _AGREEMENT, tuple(rows), title=f"Labels by {result.model}")]
    if facts is not None:
        cells = tuple((people, model, count) for people, row in facts.confusion.items() for model, count in row.items())
        tables.append(Table("confusion", _CONFUSION, cells))
    return tables
