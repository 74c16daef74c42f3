"""`cerank data`: training data of other tools as dataset folders; what there is of it, and fetching it.

Invariant: `data_app` is the place of every command about training data at rest; a module that adds one registers it
in cli/app.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.cli import options
from cerank.cli.command_class import CommandLine
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, format_of, info, write_output
from cerank.cli.progress_messages import ProgressMessages
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.importing.import_files import Imported
    from cerank.importing.published_files import PublishedFile

data_app = CommandLine(
    no_args_is_help=True, help="Training data: fetch it, import it from formats of other tools, prepare it for runs."
)

DOWNLOADS = "downloads"  # in the cache folder, unless --into says otherwise


def _formats(incomplete: str) -> list[str]:
    from cerank.importing.format_catalog import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def _sources(incomplete: str) -> list[str]:
    from cerank.importing.published_files import PUBLISHED_FILES

    return [name for name in PUBLISHED_FILES if name.startswith(incomplete)]


@data_app.command("import")
def import_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="Format of the files, or `auto` to recognize it.", autocompletion=_formats
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Files to import: plain, packed or parquet; or a folder saved by `datasets`."
        ),
    ],
    into: options.NewDataset,
    run: Annotated[
        str,
        typer.Option("--name", metavar="RUN", help="Name of the run in that folder. Default: from the file or format."),
    ] = "",
    collection: Annotated[
        str,
        typer.Option(
            "--collection", metavar="DATASET", help="Dataset that has the texts: an ir_datasets id or a folder."
        ),
    ] = "",
    depth: Annotated[
        int,
        typer.Option("--depth", metavar="N", min=0, help="Keep at most this many candidates per query; 0 keeps all."),
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="RUN", help="Import only this run, where there are several. May be repeated."),
    ] = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Import files of another tool as a dataset folder, and count what was repaired or dropped.

    If the import fails, no folder is created.

    With texts of their own: rankgpt, twolar, rank-llm, tirex, flag-embedding, tevatron, sentence-transformers,
    msmarco-text-triples, openmatch-triples, ensemble-scores-text.

    With ids of MS MARCO's passages, or of --collection: run, rank-distillm, colbertv2-run, sbert-hard-negatives,
    tevatron-ids, colbert-triples, msmarco-id-triples, ensemble-scores.

    `cerank data formats` describes each, and says where its files are published.
    """
    from cerank.importing.import_files import ImportOptions, import_files

    choices = ImportOptions(name=run, collection=collection, depth=depth, only=tuple(only or ()))
    imported = import_files(name, files, into, choices)
    emit(_report(imported), settings_of(form=form, json=json).format)
    texts = f" with the texts of {imported.collection}" if imported.collection else ""
    dataset = into if into.is_absolute() else f"./{into}"
    info(f"{imported.folder} is now a dataset{texts}; see `cerank datasets {dataset}`")


def _report(imported: Imported) -> Table:
    contents = imported.contents
    rows: list[tuple[str, int]] = [
        ("records read", contents.records),
        ("queries", contents.queries),
        ("documents", contents.documents),
        ("judgments", contents.judgments),
    ]
    rows += [(f"rows of run {name}", number) for name, number in contents.runs]
    rows += list(contents.counts)
    columns = (Column("what", "what"), Column("number", "number", "number", 0))
    return Table("imported", columns, tuple(rows), f"Imported from {imported.format}")


@data_app.command("fetch")
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Published file, as `cerank data formats` lists it.", autocompletion=_sources
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FOLDER", help="Folder to download into, as NAME/FILE. Default: `downloads` in the cache."
        ),
    ] = None,
    cache: options.Cache = None,
) -> None:
    """Download a published file, verify its checksum, and print its path.

    An interrupted download continues where it stopped. Without a network, or for a file that only you can download,
    the command ends at once with exit code 3 and says which file to place where.
    """
    from cerank.importing.download import fetch as fetched
    from cerank.importing.published_files import PUBLISHED_FILES

    source = PUBLISHED_FILES.find(name)
    folder = into if into is not None else settings_of(cache=cache).cache / DOWNLOADS
    messages = ProgressMessages()
    downloaded = fetched(source, folder, lambda done, total: messages.show_bytes(name, done, total))
    sure = (
        "not verified, because its publisher gives no checksum"
        if downloaded.checked == "nothing"
        else f"{downloaded.checked} verified"
    )
    info(f"{downloaded.how}: {counted(downloaded.size, 'byte')}, {sure}; license: {source.license}")
    write_output(f"{downloaded.path}\n")
    if source.format:
        info(f"Next: `cerank data import {source.format} {downloaded.path} --into FOLDER`")
    elif source.used_by:
        info(f"Next: `{source.used_by}`")


@data_app.command("formats")
def formats(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[FORMAT]", help="Show only this format, with its published files.", autocompletion=_formats
        ),
    ] = "",
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """List the formats that can be imported, and published files with their addresses, checksums and licenses."""
    from cerank.importing.format_catalog import FORMATS
    from cerank.importing.published_files import PUBLISHED_FILES

    chosen = [FORMATS.find(name)] if name else list(FORMATS.values())
    names = {entry.name for entry in chosen}
    described = Table(
        "formats",
        (
            Column("format", "format", "name"),
            Column("holds", "a file holds"),
            Column("gives", "the dataset gets", priority=1),
        ),
        tuple((entry.name, entry.description, entry.gives) for entry in chosen),
        "Formats",
    )
    format_name = settings_of(form=form, json=json).format
    sources = [source for source in PUBLISHED_FILES.values() if not name or source.format in names]
    if format_of(format_name) == "table":  # nine columns are for machines
        published = _in_full(sources) if name else _in_short(sources)
    else:
        published = _for_machines(sources)
    emit((described, published), format_name)


_NONE = "No published file of this format is known."


def _in_short(sources: Sequence[PublishedFile]) -> Table:
    columns = (
        Column("name", "name", "name"),
        Column("format", "format", "name"),
        Column("fetch", "how to get it", "name"),
    )
    rows = tuple((source.name, source.format or "none", "by hand" if source.by_hand else "fetch") for source in sources)
    notes = ("`cerank data formats FORMAT` shows addresses, checksums and licenses; --format tsv shows all of them",)
    return Table("files", columns, rows, "Published files", notes, empty=_NONE)


def _in_full(sources: Sequence[PublishedFile]) -> Table:
    rows: list[tuple[str, str, str]] = []
    for source in sources:
        facts = (
            ("file", source.file),
            ("address", source.url),
            ("read by", source.used_by),
            ("how to get it", source.by_hand or f"cerank data fetch {source.name}"),
            ("md5", " or ".join(source.md5) or "not stated"),
            ("license", source.license),
            ("note", source.note),
        )
        rows += [(source.name, what, value) for what, value in facts if value]
    columns = (Column("name", "name", "name"), Column("what", "what", "name"), Column("value", ""))
    return Table("files", columns, tuple(rows), "Published files", empty=_NONE)


def _for_machines(sources: Sequence[PublishedFile]) -> Table:
    columns = (
        Column("name", "name", "name"),
        Column("format", "format", "name"),
        Column("file", "published as"),
        Column("fetch", "how to get it"),
        Column("bytes", "size", "bytes"),
        Column("md5", "md5"),
        Column("license", "license"),
        Column("url", "address"),
        Column("note", "note"),
    )
    rows = tuple(
        (
            source.name,
            source.format or "none",
            source.file,
            f"by hand: {source.by_hand}" if source.by_hand else "cerank data fetch",
            source.size or None,
            " or ".join(source.md5) or None,
            source.license,
            source.url,
            source.note,
        )
        for source in sources
    )
    return Table("files", columns, rows, "Published files", empty=_NONE)
