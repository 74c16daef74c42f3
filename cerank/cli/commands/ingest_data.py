"""`cerank data ingest` and `cerank data tokenize`: what is done once to data of full size, ahead of the first run.

Invariant: neither is needed for a run to work; they only move its longest waits to a time of one's own choosing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, say
from cerank.errors import UsageError
from cerank.text.safe_text import counted

_EVERY = 10.0  # seconds between two lines of progress


class _Progress:
    """Says on stderr how far the work is, every ten seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def share(self, done: int, total: int) -> None:
        """`done` of `total` bytes."""
        if self._is_time():
            say(f"{self._what}: {done / max(1, total):.0%} of {total / 1e9:.2f} GB")

    def texts(self, done: int, _tokens: int) -> None:
        """Texts done so far."""
        if self._is_time():
            say(f"{self._what}: {done:,}, {done / self.seconds:,.0f} a second")

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._last < _EVERY:
            return False
        self._last = now
        return True


def ingest(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="TREC run files, plain, .gz or .zst.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read what is kept again, and hold it to its hashes.")
    ] = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Make TREC runs into rankings that are read from disk, whatever their size; each run once.

    A run of 64 MB or more (16 MB packed) that a recipe names is ingested by itself, when its plan is made. This does it
    ahead, and for smaller ones too. The run is checked line by line on the way; its order is trec_eval's.
    """
    from cerank.trec import ingest as ingesting
    from cerank.trec import mapped_run

    settings = settings_of(cache=cache, form=form, json=json)
    rows = []
    for run in runs:
        progress = _Progress(run.name)
        ranking = ingesting.ingest_run(run, settings.cache, progress.share)
        held = ranking.store.contents
        if verify and not mapped_run.verify(ranking.store.folder):
            hint = "remove that folder and ingest the run again"
            raise UsageError("the ingested run is not what was written", where=str(ranking.store.folder), hint=hint)
        size = sum(entry.size for entry in held.files)
        if held.misranked:
            say(f"{run}: {counted(held.misranked, 'query')} with ranks that contradict their scores; scores decide")
        if held.is_scattered:
            say(f"{run}: rows of a query did not stand together; sorted by query, this takes three readings")
        rows.append((str(run), held.queries, held.rows, held.ties, held.misranked, size, progress.seconds, held.sha256))
    columns = (
        Column("run", "run"),
        Column("queries", "queries", "number", 0),
        Column("rows", "rows", "number", 0),
        Column("ties", "tied rows", "number", 0, priority=2),
        Column("misranked", "queries ranked against their scores", "number", 0, priority=1),
        Column("bytes", "on disk", "bytes", priority=2),
        Column("seconds", "took", "seconds", priority=2),
        Column("sha256", "sha256 of the run", "name", priority=3),
    )
    emit(Table("ingested", columns, tuple(rows), "Ingested runs"), settings.format)


def tokenize(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="As recipes name it; whole, not a part.")],
    base: Annotated[
        str,
        typer.Option("--base", metavar="BASE", help="Whose tokenizer: a name from `cerank bases`, hub id or folder."),
    ] = "minilm",
    verify: Annotated[
        bool, typer.Option("--verify", help="Read what is kept again, and hold it to its hashes.")
    ] = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Tokenize a dataset's documents and queries once, for every run that reads them with this base's tokenizer.

    Training and re-ranking find the store by themselves, and compute the same numbers with it as without. Broken off,
    it goes on where it was.
    """
    from cerank.datasets.open_datasets import open_dataset
    from cerank.models.bases import locate
    from cerank.models.cross_encoder import tokenizer_of
    from cerank.tokenization import tokenize_collection
    from cerank.tokenization.token_store import KINDS

    settings = settings_of(cache=cache, form=form, json=json)
    opened = open_dataset(dataset, settings.cache)
    tokenizer = tokenizer_of(locate(base, fetch=True).folder)
    rows = []
    for kind in KINDS:
        progress = _Progress(f"{kind} texts of {dataset}")
        shelf = tokenize_collection.build(tokenizer, kind, opened, settings.cache, progress.texts)
        if verify and not tokenize_collection.verify(shelf):
            hint = "remove that folder and tokenize again"
            raise UsageError("the tokens are not what was written", where=str(shelf.folder), hint=hint)
        held = shelf.contents
        size = sum(entry.size for entry in held.files)
        rows.append((kind, held.rows, held.tokens, size, progress.seconds, str(shelf.folder)))
    columns = (
        Column("kind", "kind", "name"),
        Column("texts", "texts", "number", 0),
        Column("tokens", "tokens", "number", 0),
        Column("bytes", "on disk", "bytes", priority=1),
        Column("seconds", "took", "seconds", priority=2),
        Column("folder", "kept in", "name", priority=3),
    )
    emit(Table("tokenized", columns, tuple(rows), f"Tokens of {dataset} for {base}"), settings.format)
