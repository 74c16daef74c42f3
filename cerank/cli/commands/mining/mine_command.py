"""`cerank data mine` and `cerank data negatives show`: candidates for negatives by a model, and a look at them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.cli import options
from cerank.cli.command_class import CommandLine
from cerank.cli.commands.import_data import data_app
from cerank.cli.commands.start_run import settings_of
from cerank.cli.commands.teachers import synthesize_queries as _listed_before  # noqa: F401 - its command comes first
from cerank.cli.output import Column, Table, emit, format_of, info
from cerank.cli.progress_messages import ProgressMessages
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.app.mining.mine_candidates import Mined
    from cerank.app.mining.negative_samples import NegativeSample

negatives_app = CommandLine(no_args_is_help=True, help="Negatives of a run or a mined file.")
data_app.add_typer(negatives_app, name="negatives")

_LONGEST = 160  # characters of a text in a table for people


@data_app.command("mine")
def mine(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset whose queries get candidates, such as a training part.")
    ],
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="MODEL",
            help="A first stage (bm25, a run), a bi-encoder of sentence-transformers (folder or hub id), or a "
            "re-ranker: RUN, RUN:STAGE, or its folder.",
        ),
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="FILE", help="TREC run file to write; packed if it ends in .gz.")
    ],
    depth: Annotated[int, typer.Option("--depth", metavar="N", min=1, help="Candidates for each query.")] = 100,
    first_stage: Annotated[
        str,
        typer.Option(
            "--first-stage",
            metavar="NAME",
            help="First stage whose candidates a re-ranker orders: bm25 unless it is given.",
        ),
    ] = "",
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="TEXT",
            help='Text of a document from its fields, such as "{title}. {text}", as in the recipe that samples from '
            "the file; a re-ranker of a run takes that of its own recipe.",
        ),
    ] = "",
    relevance: Annotated[
        int | None,
        typer.Option(
            "--relevance", metavar="GRADE", min=1, help="Smallest grade of a positive, which a model scores, too: 1."
        ),
    ] = None,
    replace: options.Replace = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Mine candidates for hard negatives by a model, and write them with their provenance beside them.

    A stage samples from the file with a negative source "mined". A bi-encoder or re-ranker scores the judged positives,
    too, so that its file also serves as `scores` of the filters against false negatives. A re-ranker of an earlier run
    gives self-mined negatives.
    """
    from cerank.app.mining.mine_candidates import MiningRequest
    from cerank.app.mining.mine_candidates import mine as mine_candidates

    settings = settings_of(lab, cache, device, threads, form=form, json=json)
    request = MiningRequest(
        dataset=dataset,
        by=by,
        output=into,
        depth=depth,
        first_stage=first_stage,
        document_template=template,
        relevance=relevance,
        replace=replace,
        now=datetime.now(UTC),
    )
    messages = ProgressMessages()

    def progress(kind: str, done: int, total: int) -> None:
        messages.show(f"{done:,} of {total:,} {kind}")

    mined = mine_candidates(settings, request, progress)
    for note in mined.notes:
        info(note)
    emit(_mined_table(mined), settings.format)
    info(f'Use it as source = "mined", run = "{mined.path}" in [[stages.NAME.negative_sources]]')


def _mined_table(mined: Mined) -> Table:
    provenance = mined.provenance
    rows: list[tuple[str, str]] = [
        ("file", str(mined.path)),
        ("mined by", f"{provenance.by} {provenance.model}"),
        ("model sha256", provenance.model_sha256),
        ("dataset", provenance.dataset),
        ("queries with candidates", f"{provenance.queries:,}"),
        ("candidates", f"{provenance.candidates:,}"),
    ]
    rows += [(key.replace("_", " "), str(value)) for key, value in provenance.settings.items() if value != ""]
    return Table("mined", (Column("what", "what", "name"), Column("value", "value")), tuple(rows), "Mined candidates")


@negatives_app.command("show")
def show(
    what: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run, RUN:STAGE, or a file of mined candidates.")],
    queries: Annotated[int, typer.Option("--queries", metavar="N", min=1, help="Queries to show.")] = 5,
    per_query: Annotated[int, typer.Option("--per-query", metavar="N", min=1, help="Negatives of each query.")] = 4,
    only_dropped: Annotated[
        bool, typer.Option("--dropped", help="Show only candidates that the stage's filters dropped.")
    ] = False,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="DATASET", help="Dataset of a file that has no provenance beside it.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Decides which are shown.")] = 0,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show a sample of negatives for the eye: query, positive, negative, where it comes from, and what was dropped.

    Of a run, the groups of some random steps of a stage are sampled as the run samples them.
    """
    from cerank.app.mining.negative_samples import SampleRequest, sample

    settings = settings_of(lab, cache, form=form, json=json)
    request = SampleRequest(
        what=what, dataset=dataset, queries=queries, per_query=per_query, seed=seed, only_dropped=only_dropped
    )
    emit(
        _sample_table(sample(settings, request), is_for_people=format_of(settings.format) == "table"),
        settings.format,
        wide=wide,
    )


def _sample_table(sample_shown: NegativeSample, *, is_for_people: bool) -> Table:
    columns = (
        Column("query", "query", "name", priority=1),
        Column("query_text", "query text"),
        Column("positive", "positive", "name", priority=1),
        Column("positive_text", "positive text"),
        Column("negative", "negative", "name", priority=1),
        Column("negative_text", "negative text"),
        Column("source", "source", "name"),
        Column("rank", "rank", "number", 0),
        Column("score", "score", "number"),
        Column("dropped_by", "dropped by", "name"),
    )

    def text(value: str) -> str:
        return shown(value, _LONGEST) if is_for_people else value

    rows = tuple(
        (
            row.query, text(row.query_text), row.positive, text(row.positive_text), row.negative,
            text(row.negative_text), row.source, row.rank, row.score, row.dropped_by,
        )
        for row in sample_shown.rows
    )  # fmt: skip
    empty = "No candidate was dropped." if not rows else ""
    return Table("negatives", columns, rows, sample_shown.title, sample_shown.notes, empty=empty)
