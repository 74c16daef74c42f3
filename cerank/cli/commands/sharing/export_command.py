"""Commands that write a trained re-ranker for other libraries and for the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info, write_output
from cerank.errors import UsageError
from cerank.exporting.export_formats import FORMATS, QUANTIZED, RANKINGS

if TYPE_CHECKING:
    from cerank.app.publishing.export_model import ExportRequest, ExportResult
    from cerank.exporting.run_metadata import MetadataRequest
    from cerank.settings import Settings


def _formats(incomplete: str) -> list[str]:
    return [name for name in (*FORMATS, RANKINGS) if name.startswith(incomplete)]


Run = Annotated[str, typer.Argument(metavar="RUN", help="Run (its last stage), or RUN:STAGE.")]
As = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="FORMAT",
        help="sentence-transformers, transformers, onnx, onnx-int8, onnx-int8-static, openvino or openvino-int8 "
        "(the extras onnx and openvino install what these need); or trec, for rankings.",
        autocompletion=_formats,
    ),
]
License = Annotated[
    str,
    typer.Option(
        "--license",
        metavar="ID",
        help="License of the model as the hub abbreviates it, such as apache-2.0. Default: the base's, if it is known.",
    ),
]
Queries = Annotated[
    int | None,
    typer.Option(
        "--queries",
        min=10,
        metavar="N",
        help="Test queries on which an 8-bit model's ranking is compared. Default: 200.",
    ),
]


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to make.")],
    form: As = "sentence-transformers",
    license_: License = "",
    queries: Queries = None,
    metadata: options.Metadata = False,
    actor: options.Actor = "",
    team: options.Team = "",
    goal: options.Goal = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    threads: options.Threads = None,
    output: options.Format = None,
    json: options.Json = False,
) -> None:
    """Write the re-ranker of a run for another library, with a model card, and check its scores there.

    --as trec writes the run's test rankings instead, as TREC files, with --metadata each begun by ir_metadata.

    The files are loaded with the library that they are for, and its scores of 100 pairs compared with cerank's; where
    they differ nothing is kept. An 8-bit model is timed beside float32 on this processor, and its ranking compared with
    the run's, before it is recommended.
    """
    from cerank.app.publishing.export_model import export as export_model

    settings = settings_of(lab, cache, threads=threads, form=output, json=json)
    described = options.metadata_request(actor=actor, team=team, goal=goal, is_asked=metadata)
    if form == RANKINGS:
        _export_rankings(settings, run, to, described, is_for_model=bool(license_) or queries is not None)
        return
    if described is not None:
        what = "--metadata describes rankings, and these are the files of a model"
        raise UsageError(what, where="--metadata", hint=f"give --as {RANKINGS}", code="options-conflict")
    request = _request(run, form, license_, queries)
    result = export_model(settings, request, to, info)
    _show(result, settings.format)


def _export_rankings(
    settings: Settings, run: str, to: Path, metadata: MetadataRequest | None, *, is_for_model: bool
) -> None:
    """Write the rankings of a run, and list the files."""
    from cerank.app.publishing.export_rankings import export_rankings

    if is_for_model:
        what = f"--license and --queries are for models, and --as {RANKINGS} writes rankings"
        raise UsageError(what, where="--as", hint="omit them", code="options-conflict")
    written = export_rankings(settings, run, to, metadata, info)
    _show_files(written.files, settings.format)
    for note in written.notes:
        info(note)


def push(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Repository on the hub: organization/name.")],
    form: As = "sentence-transformers",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and check everything, show files and card, and send nothing.")
    ] = False,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Propose the files as a pull request, in place of a commit.")
    ] = False,
    license_: License = "",
    queries: Queries = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    threads: options.Threads = None,
) -> None:
    """Upload the re-ranker of a run to the Hugging Face hub, with a model card that holds its evaluation results.

    It is exported and checked as by `cerank export`, then uploaded in one commit, as the user whom `hf auth login` or
    HF_TOKEN names.
    """
    from cerank.app.publishing.push_model import PushRequest
    from cerank.app.publishing.push_model import push as push_model

    settings = settings_of(lab, cache, threads=threads)
    request = PushRequest(
        export=_request(run, form, license_, queries),
        repository=name,
        private=private,
        dry_run=dry_run,
        pull_request=pull_request,
    )
    result = push_model(settings, request, info)
    _show(result.exported, settings.format)
    if dry_run:
        info(f"dry run: nothing was sent to {name}; its card would be")
        write_output("\n" + result.card)
    else:
        write_output(f"{result.url}\n")


def _request(run: str, form: str, license_: str, queries: int | None) -> ExportRequest:
    """Return what is to be exported.

    Raises:
        UsageError: --queries is given for a format that is not measured.
    """
    from cerank.app.publishing.export_model import ExportRequest

    if queries is None:
        return ExportRequest(run=run, form=form, license=license_)
    if form not in QUANTIZED:
        what = "--queries only works with formats of 8 bits, whose ranking is measured"
        raise UsageError(what, where="--queries", hint="omit it", code="options-conflict")
    return ExportRequest(run=run, form=form, license=license_, queries=queries)


def _show_files(files: Sequence[tuple[str, int]], form: str) -> None:
    columns = (Column("file", "File", "name"), Column("bytes", "Bytes", "number", 0))
    emit(Table("files", columns, tuple(files)), form)


def _show(result: ExportResult, form: str) -> None:
    _show_files(result.files, form)
    info(result.check.text)
    for sentence in result.quantized.sentences if result.quantized is not None else ():
        info(sentence)
