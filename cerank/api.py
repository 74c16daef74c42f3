"""The library: load a re-ranker and score with it, and compare rankings, by the same code as the command line.

`import cerank` brings these names and imports nothing slow until one of them is used.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cerank.errors import UsageError
from cerank.settings import Flags, resolve

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison, Row
    from cerank.inference.rerank import Scorer
    from cerank.text.table_data import Table

__all__ = ["ComparisonResult", "ComparisonRow", "LoadedReranker", "RankedPassage", "compare", "load"]

RankingLike = str | Path | Mapping[str, Mapping[str, float]] | Any
QrelsLike = str | Path | Mapping[str, Mapping[str, int]] | Any

_QUERY = ("qid", "query_id")
_DOCUMENT = ("docno", "doc_id", "docid")
_SCORE = ("score",)
_GRADE = ("label", "relevance", "rel")


class RankedPassage(msgspec.Struct, frozen=True):
    """One passage of a re-ranked list."""

    index: int  # its place in the list that was given
    score: float
    text: str


class LoadedReranker:
    """A re-ranker that is ready to score; made by `load`.

    Example:
        >>> model = load("my-reranker")
        >>> passages = ["It reads query and document together.", "Otters sleep."]
        >>> len(model.score("what is a cross-encoder", passages))
        2
        >>> best = model.rerank("what is a cross-encoder", passages, top_n=1)[0]
        >>> passages[best.index] == best.text
        True
    """

    def __init__(self, scorer: Scorer, name: str) -> None:
        self._scorer, self.name = scorer, name

    def __repr__(self) -> str:
        return f"<cerank.LoadedReranker {self.name}, {self._scorer.precision}>"

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Return the score of each passage for the query, in the order of the passages; larger is more relevant."""
        return self.score_pairs([(query, passage) for passage in passages])

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the scores of (query, passage) pairs, in order; pairs of several queries are batched together."""
        return self._scorer.score(pairs) if pairs else []

    def rerank(self, query: str, passages: Sequence[str], top_n: int | None = None) -> list[RankedPassage]:
        """Return the passages by score, best first; equal scores keep the order given.

        Args:
            passages: texts to order, in any order.
            top_n: number of passages to return; None returns all.
        """
        scores = self.score(query, passages)
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        return [RankedPassage(index, scores[index], passages[index]) for index in order[:top_n]]


def load(
    model: str | Path,
    *,
    device: str | None = None,
    precision: Literal["fp32", "bf16", "auto"] | None = None,
    lab: str | Path | None = None,
) -> LoadedReranker:
    """Return a re-ranker by what it is called.

    Args:
        model: a run's short name, RUN:STAGE, a folder with a finished re-ranker, a hub id, or a declaration file.
        device: "auto", "cpu", "cuda", "cuda:0" or "mps"; None takes the one that `cerank config show` prints.
        precision: of matrix products; None is "fp32" on a CPU and "auto" on a GPU. Scores are float32 in any case.
        lab: folder of runs; None takes the one that `cerank config show` prints.

    Raises:
        MissingError: there is no such model on this machine, and none on the hub.
        UsageError: it is no finished re-ranker.

    Example:
        >>> load("my-reranker", device="cpu")
        <cerank.LoadedReranker my-reranker, fp32>
    """
    from cerank.inference.rerank import Scorer
    from cerank.machine.devices import resolve_device

    name = str(model)
    flags = Flags(device=device, lab=str(lab) if lab is not None else None)
    settings = resolve(flags, os.environ, Path.cwd()).settings
    folder, hub_id, declared = _model_folder(name, settings.lab)
    scorer = Scorer.load(folder, resolve_device(settings.device), precision, name=hub_id, declared=declared)
    return LoadedReranker(scorer, name)


def _model_folder(name: str, lab: Path) -> tuple[Path, str, Any]:
    """Return the folder of a model, its hub id if it has one, and its declaration if there is one."""
    from cerank.app.rerank_dataset import checkpoint_folder
    from cerank.models import bases

    path = Path(name).expanduser()
    if path.is_dir():
        return path, "", None
    if name.endswith(".toml") or name in bases.BASES or (name.count("/") == 1 and not name.startswith((".", "~", "/"))):
        files = bases.locate(name)
        return files.source, name, files.declaration
    return checkpoint_folder(lab, name), "", None


# comparisons


class ComparisonRow(msgspec.Struct, frozen=True, kw_only=True):
    """One system against another by one measure."""

    measure: str
    system: str
    against: str
    mean: float
    mean_against: float
    difference: float
    low: float  # lower end of the verdict's 95 % interval, simultaneous over all rows
    high: float
    p: float
    p_adjusted: float  # over all rows
    verdict: str  # "better", "worse", "equivalent", "different but negligible" or "cannot tell"
    queries: int
    wins: int
    losses: int


class ComparisonResult:
    """Rows with verdicts, in words and as tables; made by `compare`."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison  # all values per query, for whatever is not below
        self.rows = tuple(map(_plain_row, comparison.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __repr__(self) -> str:
        return "\n".join(
            f"{row.measure}: {row.system} against {row.against}: {row.difference:+.4f} "
            f"[{row.low:+.4f}, {row.high:+.4f}], adjusted p {row.p_adjusted:.3g}, {row.verdict}"
            for row in self.rows
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """Return the answers in words, a paragraph for each measure."""
        from cerank.evaluation.answers import paragraphs

        return paragraphs(self.comparison)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [msgspec.structs.asdict(row) for row in self.rows]

    def to_pandas(self) -> Any:
        """Return the rows as a pandas DataFrame; pandas must be installed."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("pandas is not installed", hint="pip install pandas, or use to_polars()") from error
        return pd.DataFrame(self.to_dicts(), columns=list(ComparisonRow.__struct_fields__))

    def to_polars(self) -> Any:
        """Return the rows as a polars DataFrame."""
        import polars as pl

        return pl.DataFrame(self.to_dicts())

    def to_text(self, form: Literal["latex", "markdown", "csv", "tsv", "json"]) -> str:
        """Return the comparison as `cerank compare --format` prints it."""
        from cerank.app.comparison import export_comparison

        return export_comparison.as_text(self.comparison, form)

    def _table(self) -> Table:
        from cerank.app.comparison import export_comparison

        return export_comparison.short_table(self.comparison)

    def _repr_html_(self) -> str:
        """Return an HTML table for notebooks; all text from outside is escaped."""
        from cerank.text.table_data import rounded

        table = self._table()
        columns = table.columns
        lines = [[column.heading for column in columns]]
        lines += [[rounded(value, column) for value, column in zip(row, columns, strict=True)] for row in table.rows]
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
        body = "".join(f"<tr>{line}</tr>" for line in cells)
        said = "".join(f"<p>{html.escape(answer)}</p>" for answer in self.answers)
        return f"<table>{body}</table>{said}"


def compare(
    systems: Mapping[str, RankingLike],
    qrels: QrelsLike,
    *,
    measures: Sequence[str] = ("nDCG@10",),
    margins: Mapping[str, float] | None = None,
    pairs: Literal["baseline", "all"] = "baseline",
    correction: Literal["auto", "holm", "max-t", "none"] = "auto",
    dataset: str = "queries",
) -> ComparisonResult:
    """Compare rankings query by query; the first system is the baseline.

    Args:
        systems: label -> a TREC run file, a dict of query id -> document id -> score, ir_measures' ScoredDoc rows, or a
            DataFrame (pandas or polars) with qid, docno and score.
        qrels: a qrels file, a dict of query id -> document id -> grade, ir_measures' Qrel rows, or a DataFrame with
            qid, docno and label.
        measures: names as ir_measures has them.
        margins: measure -> the largest difference that does not matter; without one nothing is called equivalent.
        pairs: "baseline" for each against the first, "all" for each against each.
        correction: for several tests; see `cerank guide verdicts`.
        dataset: what to call the queries.

    Raises:
        UsageError: fewer than two systems, an unknown measure, or rankings that cannot be read.

    Example:
        >>> compare({"bm25": "bm25.run", "mine": "mine.run"}, "test.qrels", margins={"nDCG@10": 0.02})
        nDCG@10: mine against bm25: +0.2480 [+0.0738, +0.3095], adjusted p 0.0273, better
    """
    from cerank.app.comparison.comparisons import identity
    from cerank.evaluation.compare import Margin, Terms
    from cerank.evaluation.compare import compare as compare_systems
    from cerank.evaluation.measures import canonical, check
    from cerank.evaluation.systems import Condition, System, measured

    if len(systems) < 2:
        raise UsageError(
            "a comparison needs at least two systems", hint='such as {"bm25": ..., "mine": ...}', code="too-few-systems"
        )
    judged = _qrels(qrels)
    names = check(measures, judged, "measures")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    widths = {canonical(name, "margins"): value for name, value in (margins or {}).items()}
    chosen = {name: Margin(value=value, source="compare()", declared=now) for name, value in widths.items()}
    condition = Condition(dataset)
    sha256 = identity(judged)
    compared: list[System] = []
    for label, given in systems.items():
        values = measured(names, condition, judged, sha256, _ranking(given, label))
        compared.append(System(label=label, measured=(values,), is_fixed=True))
    terms = Terms(margins=chosen, pairs=pairs, correction=correction)
    return ComparisonResult(compare_systems(compared, names, terms=terms))


def _plain_row(row: Row) -> ComparisonRow:
    paired = row.paired
    return ComparisonRow(
        measure=row.measure,
        system=row.right,
        against=row.left,
        mean=paired.mean_right,
        mean_against=paired.mean_left,
        difference=paired.difference,
        low=row.judgment.low,
        high=row.judgment.high,
        p=row.judgment.p,
        p_adjusted=row.p_corrected,
        verdict=row.verdict,
        queries=paired.n,
        wins=paired.wins,
        losses=paired.losses,
    )


def _ranking(given: RankingLike, label: str) -> Any:
    """Return a ranking in strict order, ties broken as for a TREC run file."""
    from cerank.trec.text_io import read_run, run_of

    if isinstance(given, str | Path):
        return read_run(Path(given).expanduser()).ranking
    rows = ((query, doc, float(score)) for query, doc, score in _rows(given, _SCORE, f"system '{label}'"))
    return run_of(rows, label, f"system '{label}'").ranking


def _qrels(given: QrelsLike) -> dict[str, dict[str, int]]:
    from cerank.trec.text_io import read_qrels

    if isinstance(given, str | Path):
        return read_qrels(Path(given).expanduser())
    judged: dict[str, dict[str, int]] = {}
    for query, doc, grade in _rows(given, _GRADE, "qrels"):
        if int(grade) != grade:
            raise UsageError(
                f"query {query}, document {doc}: the grade {grade} is no whole number",
                where="qrels",
                code="grade-not-integer",
            )
        if judged.setdefault(query, {}).setdefault(doc, int(grade)) != int(grade):
            raise UsageError(f"query {query}, document {doc}: two different grades", where="qrels")
    return judged


def _rows(given: Any, value: tuple[str, ...], where: str) -> Iterable[tuple[str, str, Any]]:
    """Yield (query id, document id, value) of a mapping, a DataFrame, or rows with such attributes.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(given, Mapping):
        for query, row in given.items():
            for doc, number in row.items():
                yield str(query), str(doc), number
        return
    columns = getattr(given, "columns", None)
    if columns is not None:
        names = [_first_of(known, columns, where) for known in (_QUERY, _DOCUMENT, value)]
        for query, doc, number in zip(*(given[name] for name in names), strict=True):
            yield str(query), str(doc), number
        return
    if not isinstance(given, Iterable):
        hint = "give a file, a dict of dicts, a DataFrame, or rows of ir_measures"
        raise UsageError(f"is a {type(given).__name__}", where=where, hint=hint, code="wrong-input-type")
    for item in given:
        fields = [name for name in dir(item) if not name.startswith("_")]
        names = [_first_of(known, fields, where) for known in (_QUERY, _DOCUMENT, value)]
        query, doc, number = (getattr(item, name) for name in names)
        yield str(query), str(doc), number


def _first_of(names: tuple[str, ...], known: Iterable[str], where: str) -> str:
    for name in names:
        if name in known:
            return name
    raise UsageError(
        f"has no column {' or '.join(names)}",
        where=where,
        hint=f"it has {', '.join(map(str, known))[:200]}",
        code="column-missing",
    )
