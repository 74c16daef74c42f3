"""The library: load a re-ranker and score with it, compare rankings, and train, by the code of the command line.

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

from cerank.errors import RunFailedError, UsageError
from cerank.settings import Flags, Settings, resolve

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison, Row
    from cerank.evaluation.systems import Condition, System
    from cerank.evaluation.verdicts.terms import Margin
    from cerank.inference.rerank import Scorer
    from cerank.runs.layout import RunFolder
    from cerank.text.table_data import Table

__all__ = ["ComparisonResult", "ComparisonRow", "LabRun", "LoadedReranker", "RankedPassage", "compare", "load", "train"]

RankingLike = str | Path | Mapping[str, Mapping[str, float]] | Any
QrelsLike = str | Path | Mapping[str, Mapping[str, int]] | Any

_QUERY = ("qid", "query_id")
_DOCUMENT = ("docno", "doc_id", "docid")
_SCORE = ("score",)
_GRADE = ("label", "relevance", "rel")


class RankedPassage(msgspec.Struct, frozen=True):
    """A passage with its score and rank after re-ranking."""

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
    from cerank.app.named_models import find_model
    from cerank.inference.rerank import Scorer
    from cerank.machine.devices import resolve_device

    name = str(model)
    flags = Flags(device=device, lab=str(lab) if lab is not None else None)
    settings = resolve(flags, os.environ, Path.cwd()).settings
    model_files = find_model(settings.lab, name)
    scorer = Scorer.load(
        model_files.folder,
        resolve_device(settings.device),
        precision,
        name=model_files.hub_id,
        declared=model_files.declared,
    )
    return LoadedReranker(scorer, name)


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
        from cerank.evaluation.comparison_rows import mark_of_step

        return "\n".join(
            f"{row.measure}: {row.system} against {row.against}: {row.difference:+.4f} "
            f"[{row.low:+.4f}, {row.high:+.4f}]{mark_of_step(whole.judgment)}, adjusted p {row.p_adjusted:.3g}, "
            f"{row.verdict}"
            for row, whole in zip(self.rows, self.comparison.rows, strict=True)
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
    systems: Mapping[str, RankingLike] | Any,
    qrels: QrelsLike | None = None,
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
            DataFrame (pandas or polars) with qid, docno and score. Or what `pt.Experiment(..., perquery=True)` returns:
            one DataFrame with name, qid, measure and value, of systems that are measured already.
        qrels: a qrels file, a dict of query id -> document id -> grade, ir_measures' Qrel rows, or a DataFrame with
            qid, docno and label; none for systems that are measured already.
        measures: names as ir_measures has them; of systems that are measured already all that they have.
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
    from cerank.app.comparison.measuring.named_judgments import identity
    from cerank.evaluation.compare import compare as compare_systems
    from cerank.evaluation.measures import check
    from cerank.evaluation.systems import Condition, System, measured
    from cerank.evaluation.verdicts.terms import Terms

    now = datetime.now(UTC).isoformat(timespec="seconds")
    if not isinstance(systems, Mapping):
        if qrels is not None:
            raise UsageError("values that are measured already need no qrels", where="qrels", code="options-conflict")
        compared, names = _measured_already(systems, Condition(dataset))
        terms = Terms(margins=_margins(margins, now), pairs=pairs, correction=correction)
        return ComparisonResult(compare_systems(compared, names, terms=terms))
    if qrels is None:
        raise UsageError("rankings need qrels to be measured", where="qrels", code="no-judgments")
    if len(systems) < 2:
        raise UsageError(
            "a comparison needs at least two systems", hint='such as {"bm25": ..., "mine": ...}', code="too-few-systems"
        )
    judged = _qrels(qrels)
    names = check(measures, judged, "measures")
    condition = Condition(dataset)
    sha256 = identity(judged)
    compared = []
    for label, given in systems.items():
        values = measured(names, condition, judged, sha256, _ranking(given, label))
        compared.append(System(label=label, measured=(values,), is_fixed=True))
    terms = Terms(margins=_margins(margins, now), pairs=pairs, correction=correction)
    return ComparisonResult(compare_systems(compared, names, terms=terms))


def _margins(margins: Mapping[str, float] | None, now: str) -> dict[str, Margin]:
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.verdicts.terms import Margin

    widths = {canonical(name, "margins"): value for name, value in (margins or {}).items()}
    return {name: Margin(value=value, source="compare()", declared=now) for name, value in widths.items()}


def _measured_already(frame: Any, condition: Condition) -> tuple[list[System], tuple[str, ...]]:
    """Return the systems of a table with name, qid, measure and value, in its order, and their measures.

    Raises:
        UsageError: it is no such table, a value is missing or given twice, or there are fewer than two systems.
    """
    from cerank.evaluation.measures import canonical
    from cerank.evaluation.systems import Measured, System

    columns = getattr(frame, "columns", None)
    if columns is None:
        hint = "give a dict of rankings by label, or the table of pt.Experiment(..., perquery=True)"
        raise UsageError(f"is a {type(frame).__name__}", where="systems", hint=hint, code="wrong-input-type")
    fields = [_first_of((name,), columns, "systems") for name in ("name", "qid", "measure", "value")]
    values: dict[str, dict[str, dict[str, float]]] = {}
    for label, query, measure, value in zip(*(frame[name] for name in fields), strict=True):
        of_measure = values.setdefault(str(label), {}).setdefault(canonical(str(measure), "systems"), {})
        if of_measure.setdefault(str(query), float(value)) != float(value):
            what = f"system '{label}', query {query}: two values of {measure}"
            raise UsageError(what, where="systems", hint="give each system a name of its own", code="value-twice")
    if len(values) < 2:
        hint = 'such as pt.Experiment([bm25, mine], ..., names=["bm25", "mine"], perquery=True)'
        raise UsageError("a comparison needs at least two systems", hint=hint, code="too-few-systems")
    names = tuple(next(iter(values.values())))
    first = {name: set(next(iter(values.values()))[name]) for name in names}
    for label, of_system in values.items():
        if {name: set(of_system[name]) for name in of_system} != first:
            what = f"system '{label}' has values of other queries or measures than the first"
            raise UsageError(
                what, where="systems", hint="measure all systems on the same topics", code="queries-differ"
            )
    systems = [
        System(label=label, measured=(Measured(condition=condition, qrels_sha256="", values=of_system),), is_fixed=True)
        for label, of_system in values.items()
    ]
    return systems, names


# training


class LabRun:
    """A run of the lab that `train` started.

    Attributes:
        name: its short name, by which `load` and the commands know it.
        folder: its folder.
    """

    def __init__(self, folder: RunFolder, settings: Settings) -> None:
        from cerank.runs import run_store

        self._folder, self._settings = folder, settings
        self.folder, self.name = folder.path, run_store.short_name(folder)

    def __repr__(self) -> str:
        return f"<cerank.LabRun {self.name}, {self.state}>"

    @property
    def state(self) -> str:
        """Return "running", "finished", "paused", "failed" or another state that `cerank ps` shows."""
        from cerank.runs import run_store

        return run_store.status(self._folder, datetime.now(UTC)).state

    def result(self) -> ComparisonResult:
        """Return the comparison of the run's stages.

        Raises:
            MissingError: no stage of it has been measured yet.
        """
        from cerank.app.comparison import comparisons

        return ComparisonResult(comparisons.of_run(self._folder))

    def load(self, stage: str = "") -> LoadedReranker:
        """Return the re-ranker of a stage, of the last one without a name; raises as `cerank.load`."""
        name = f"{self.name}:{stage}" if stage else self.name
        return load(name, device=self._settings.device, lab=self._settings.lab)


def train(
    recipe: str | Path,
    *,
    base: str | Path = "",
    dataset: str | Path = "",
    seed: int | None = None,
    changes: Mapping[str, object] | None = None,
    label: str = "",
    wait: bool = True,
    device: str | None = None,
    lab: str | Path | None = None,
    cache: str | Path | None = None,
) -> LabRun:
    """Train, re-rank and compare as a recipe says: a run of the lab, in a process of its own, as of `cerank run`.

    Args:
        recipe: a shipped recipe's name, or a .toml file.
        base: base model in place of the recipe's.
        dataset: dataset in place of the recipe's.
        seed: seed in place of the recipe's.
        changes: key -> value of further settings of the recipe, such as {"stages.distill.learning_rate": 3e-6}.
        label: a label of yours.
        wait: whether to return once the run has ended; else it is running in the background.
        device: "auto", "cpu", "cuda", "cuda:0" or "mps"; None takes the one that `cerank config show` prints.
        lab: folder of runs; None takes the one that `cerank config show` prints.
        cache: folder of indexes and built datasets; as `lab`.

    Raises:
        CerankError: the recipe, its data or its model are wrong or missing.
        RunFailedError: the run did not finish; `cerank resume` continues it.

    As in `run = cerank.train("contrastive-then-distill", seed=7)`, whose `result()` is a comparison.
    """
    import json

    from cerank.app import plans
    from cerank.app.lab import Lab
    from cerank.app.run_request import RunRequest, load_recipe
    from cerank.runs import run_store

    flags = Flags(device=device, lab=_text_or_none(lab), cache=_text_or_none(cache))
    settings = resolve(flags, os.environ, Path.cwd()).settings
    request = RunRequest(
        recipes=(str(recipe),),
        bases=(str(base),) if base else (),
        dataset=str(dataset),
        seed=seed,
        overrides=tuple(f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()),
    )
    loaded = load_recipe(request)
    plan = plans.plan_of(loaded.recipe, settings, now=datetime.now(UTC), label=label)
    folder, worker = Lab(settings).start(plan, loaded.toml)
    run = LabRun(folder, settings)
    if not wait:
        return run
    worker.wait()
    status = run_store.status(folder, datetime.now(UTC))
    if status.state != "finished":
        hint = f"`cerank logs {run.name}` shows why, `cerank resume {run.name}` continues it"
        what = f"the run is {status.state}" + (f": {status.text}" if status.text else "")
        raise RunFailedError(what, where=run.name, hint=hint, code="run-state")
    return run


def _text_or_none(path: str | Path | None) -> str | None:
    return str(path) if path is not None else None


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
        f"the table has no column {' or '.join(names)}",
        where=where,
        hint=f"it has {', '.join(map(str, known))[:200]}",
        code="column-missing",
    )
