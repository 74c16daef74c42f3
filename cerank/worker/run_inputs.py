"""What a run reads: datasets, candidates and teachers; the latter two are kept in the run as TREC runs.

An ingested run of millions of rows is not copied: the plan has its hash, and a small record names the file. A teacher
that the recipe declares ranks what is missing before a stage trains; its answers are kept in the lab, so that no call
is made twice.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cerank.core.rankings import LazyRanking, Ranking, cut_lists, ordered
from cerank.datasets.dataset import Dataset
from cerank.datasets.document_fields import titles_of
from cerank.errors import HeldError, RunFailedError
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_lines, sha256_text, trust_hashes
from cerank.inference.rerank import Scorer
from cerank.models.bases import BaseFiles, locate
from cerank.planning import inputs
from cerank.recipes.schema import Stage
from cerank.retrieval import bm25, first_stage
from cerank.retrieval.teachers import Repairs, read_teacher
from cerank.runs import checksums
from cerank.runs.layout import RunFolder
from cerank.runs.records import TeacherCost
from cerank.teachers.engines.engine import StopTeachingError
from cerank.teachers.make import MadeTeacher, make
from cerank.teachers.ranking_files import Provenance
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import TeachingProgress
from cerank.text.safe_text import counted
from cerank.tokenization import token_store
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse
from cerank.tokenization.token_store import TokenStore
from cerank.trec.open_run import open_run_file
from cerank.trec.text_io import write_run
from cerank.worker.run_context import RunContext

MOST_CACHED = 4  # candidates kept in memory: training's, validation's and two of a test; each is asked for many times


class RunInputs:
    """A plan's inputs, checked against their hashes.

    Raises:
        RunFailedError: an input is not what it was when the plan was made.
    """

    def __init__(self, context: RunContext) -> None:
        plan = context.plan
        self._context, self._plan, self._folder = context, plan, context.folder
        self._cache = Path(plan.cache)
        self._candidates: dict[tuple[str, str], Ranking] = {}
        self._read_by_base: dict[str, Dataset] = {}  # datasets with documents as the base reads them
        self._titles: dict[str, Callable[[Sequence[str]], list[str]]] = {}
        self._depths = {(use.dataset, use.first_stage): use.depth for use in inputs.first_stage_uses(plan.recipe)}
        trust_hashes(plan.hashed)
        self.datasets = inputs.open_datasets(plan.recipe, self._cache)
        for current in inputs.hash_inputs(plan.recipe, self.datasets, fetch=False):
            planned = plan.input(current.role, current.name)
            if planned.sha256 != current.sha256:
                raise RunFailedError(
                    f"the {current.role} changed since the plan was made: "
                    f"sha256 {current.sha256[:12]}, planned {planned.sha256[:12]}",
                    where=current.location or current.name,
                    hint="restore it, or start a new run",
                )

    def base(self) -> BaseFiles:
        """Return the base's files."""
        return locate(self._plan.recipe.base, fetch=False, pooling=self._plan.recipe.pooling)

    def baseline(self, model: str, precision: str) -> Scorer:
        """Return a baseline of the recipe, a finished re-ranker given by hub id or folder, ready to score."""
        files = locate(model, fetch=False)
        return Scorer.load(files.source, self._context.device, precision, name=model, declared=files.declaration)

    def read_by(self, system: str, dataset: str) -> Dataset:
        """Return a dataset with its documents as a stage, whose base may have a template of its own, reads them."""
        if system not in self._plan.recipe.stages:  # a baseline: finished re-rankers read what the others read
            return self.datasets[dataset]
        if dataset not in self._read_by_base:
            self._read_by_base[dataset] = inputs.as_base_reads(self.datasets[dataset], self._plan.recipe)
        return self._read_by_base[dataset]

    def documents(self, dataset: str, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of documents, in order, as all but the base reads them."""
        return self.datasets[dataset].documents.texts(doc_ids)

    def queries(self, dataset: str, query_ids: Sequence[str]) -> list[str]:
        """Return the texts of queries, in order."""
        texts = self.datasets[dataset].queries
        return [texts[query] for query in query_ids]

    def token_store(self, system: str, dataset: str, tokenizer: Any) -> TokenStore | None:
        """Return the stored tokens of a dataset's texts, as a system reads them; None if there are none."""
        return token_store.open_token_store(tokenizer, self.read_by(system, dataset), self._cache)

    def windows_in_use(self, system: str, dataset: str) -> WindowsInUse | None:
        """Return how a stage or baseline cuts the documents of a dataset into passages; None where it does not."""
        windows = PassageWindows.of_spec(self._plan.recipe.passages_of(system))
        if windows is None:
            return None
        if windows.title and dataset not in self._titles:
            self._titles[dataset] = titles_of(self.datasets[dataset])
        return WindowsInUse(windows, self._titles.get(dataset) if windows.title else None)

    def candidates(self, dataset: str, first: str) -> Ranking:
        """Return the first stage's ranking of a dataset to the depth that the plan needs; write it to the run, too.

        The file is a product and what a resumed run reads; the run that made it does not read it back.
        """
        if (dataset, first) not in self._candidates:
            if len(self._candidates) >= MOST_CACHED:
                self._candidates.pop(next(iter(self._candidates)))
            self._candidates[dataset, first] = self._read_candidates(dataset, first)
        return self._candidates[dataset, first]

    def _read_candidates(self, dataset: str, first: str) -> Ranking:
        path = self._folder.candidates(dataset, first)
        if not path.exists():
            self._log_index_cost(dataset, first)
            ranking = first_stage.candidates(self.datasets[dataset], first, self._depths[dataset, first], self._cache)
            disk.make_folder(path.parent)
            if isinstance(ranking, LazyRanking) and ranking.sha256:
                return _write_reference(self._folder, path, ranking)
            tag = "_".join(Path(first).name.split()) or "first-stage"  # of a TREC run: no folders, no blanks
            checksums.write(self._folder, path, write_run(ranking, tag))
            return ranking
        return open_run_file(path, self._cache).ranking

    def _log_index_cost(self, dataset: str, first: str) -> None:
        """Log an event if an index must be built that takes minutes and gigabytes."""
        opened = self.datasets[dataset]
        if first_stage.is_built_in_bm25(opened, first):
            cost = bm25.cost(opened.documents, self._cache)
            if cost:
                self._context.log.event("index", f"{cost}; a TREC run as the first stage needs none")

    def teacher(self, name: str, stage: Stage, queries: Sequence[str], *, in_validation: bool = False) -> Ranking:
        """Return the teacher's ranking for a stage or for its validation queries; written to the run the first time.

        Args:
            name: name of the stage that learns from the teacher.
            stage: settings of the stage, which name its teacher.
            queries: ids of the queries to rank; a teacher that is read from a file gives all queries of the file.
            in_validation: whether these are queries of the validation dataset; what a stage learns from may be cut to
                fewer or shorter lists, what it is validated on never is.
        """
        if stage.asked_teacher in self._plan.recipe.teachers:
            return rank_for_stage(self._context, self.datasets, name, stage, queries, in_validation=in_validation)
        is_computed = stage.teacher == inputs.EMBEDDING
        is_cut = bool(stage.list_depth or stage.list_queries)
        path = self._folder.teacher(f"{name} in validation" if in_validation and (is_computed or is_cut) else name)
        if not path.exists():
            disk.make_folder(path.parent)
            if is_computed:
                checksums.write(self._folder, path, self._embedding(name, stage, queries, in_validation))
            else:
                given = self._read_teacher(name, stage)
                given = self._cut_lists(name, stage, given) if is_cut and not in_validation else given
                if isinstance(given, LazyRanking) and given.sha256:
                    return _write_reference(self._folder, path, given)
                checksums.write(self._folder, path, write_run(given, "teacher"))
                return given
        return open_run_file(path, self._cache).ranking

    def tested_teacher(self, name: str, test: str, first: str) -> Ranking:
        """Return a declared teacher's ranking of a test dataset's candidates, of no more of them than are re-ranked.

        Queries that it could not rank are absent. Raises as `rank_for_stage`.
        """
        recipe = self._plan.recipe
        request = TeachRequest(
            lab=self._folder.lab,
            cache=self._cache,
            name=name,
            teachers=recipe.teachers,
            dataset=self.datasets[test],
            first_stage=first,
            queries=tuple(self.datasets[test].queries),
            depth=min(recipe.teachers[name].depth, recipe.data.depth),
            device=self._plan.device,
            threads=self._plan.threads,
            fetch=False,
        )
        made = _made(self._context, request, f"{name} on {test}")
        beside = self._folder.teacher_record(f"{name} on {test} over {first}")
        disk.make_folder(beside.parent)
        checksums.save(
            self._folder, beside, MadeRanking(asked=request.queries, provenance=made.provenance, taken=_taken(made))
        )
        return made.ranking

    def repairs(self, name: str) -> Repairs:
        """Return what was repaired in a stage's teacher, after `teacher` was called for it."""
        return json_records.load_if_there(self._folder.teacher(name).with_suffix(".repairs.json"), Repairs) or Repairs()

    def _read_teacher(self, name: str, stage: Stage) -> Ranking:
        dataset = self.datasets[inputs.training_dataset(self._plan.recipe, stage)]
        teacher = read_teacher(stage.teacher, dataset, drops_malformed=stage.malformed_lists == "drop")
        repairs = teacher.repairs
        checksums.save(self._folder, self._folder.teacher(name).with_suffix(".repairs.json"), repairs)
        if teacher.ties:
            self._context.log.event("teacher ties", f"{name}: {teacher.ties}")
        if repairs.dropped:
            lists = counted(len(teacher.ranking) + repairs.dropped, "list")
            self._context.log.event("teacher lists dropped", f"{name}: {repairs.dropped} of {lists} were malformed")
        if repairs.repaired:
            self._context.log.event(
                "teacher repaired",
                f"{name}: {repairs.repaired} of {len(teacher.ranking)} lists; {repairs.missing} candidates appended, "
                f"{repairs.repeated} repeats and {repairs.out_of_range} numbers out of range dropped",
            )
        return teacher.ranking

    def _cut_lists(self, name: str, stage: Stage, lists: Ranking) -> Ranking:
        """Return a teacher's lists of as many queries, and of the documents, that a stage learns from.

        Raises:
            RunFailedError: nothing is left of them.
        """
        first = inputs.training_first_stage(self._plan.recipe, stage)
        trained = inputs.training_dataset(self._plan.recipe, stage)
        candidates = self.candidates(trained, first) if inputs.cuts_lists(stage) else None
        cut = cut_lists(lists, self.datasets[trained].queries, candidates, stage.list_depth, stage.list_queries)
        if not cut:
            what = f"none of the teacher's documents is among the first {stage.list_depth} of {first}"
            raise RunFailedError(what, where=f"stages.{name}.list_depth", code="no-ranked-document")
        before, after = (sum(len(ranking[query]) for query in ranking) for ranking in (lists.only(list(cut)), cut))
        what = f"{len(cut):,} of {counted(len(lists), 'list')}, {after:,} of their {before:,} documents"
        self._context.log.event("teacher lists cut", f"{name}: learns from {what}")
        return cut

    def _embedding(self, stage_name: str, stage: Stage, queries: Sequence[str], in_validation: bool) -> bytes:
        """Return the embedding teacher's TREC run, from the cache if the same one was computed before."""
        from cerank.inference.embeddings import Embedder, distinct_documents, embedding_similarity
        from cerank.inference.score_cache import score_cache_key

        recipe = self._plan.recipe
        name, first = inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage)
        if in_validation:
            name, first = inputs.validation_dataset(recipe, stage), inputs.validation_first_stage(recipe)
        candidates = self.candidates(name, first).only(queries).top(stage.window[1])
        files = locate(inputs.EMBEDDING_BASE, fetch=False)
        documents = self.datasets[name].documents.fingerprint()
        identity = (
            *score_cache_key(
                files.sha256, documents, device=self._context.device, threads=self._plan.threads, precision="fp32"
            ),
            inputs.embedding_length(stage),
            hashlib.sha256(write_run(candidates, "candidates")).hexdigest(),
        )
        cached = self._cache / "teachers" / f"{sha256_text(repr(identity))}.run.gz"
        if cached.is_file():
            return cached.read_bytes()
        self._context.heartbeat.enter(
            "teacher", stage_name, total=len(candidates) + len(distinct_documents(candidates))
        )
        began = time.monotonic()
        scores = embedding_similarity(
            Embedder(files, max_length=inputs.embedding_length(stage), device=self._context.device),
            candidates,
            partial(self.queries, name),
            partial(self.documents, name),
            self._context.heartbeat.advance,
        )
        data = write_run(ordered(scores, candidates), "embedding")
        disk.make_folder(cached.parent)
        temporary = cached.with_name(f"{cached.name}.{os.getpid()}")  # another run may write the same file
        disk.write(temporary, data)
        disk.rename(temporary, cached)
        minutes, seconds = divmod(round(time.monotonic() - began), 60)
        what = f"{stage_name}: {len(candidates)} queries ranked by {inputs.EMBEDDING_BASE} in {minutes}:{seconds:02d}"
        self._context.log.event("teacher made", what)
        return data


class RunReference(msgspec.Struct, frozen=True):
    """Recorded in a run in place of a copy of a ranking that is read from an ingested TREC run."""

    source: str  # the file
    sha256: str  # hash of the file's bytes, as the plan has it
    queries: int  # number of its queries that this run reads
    depth: int  # documents a query that it reads at most; 0 for all


def _write_reference(folder: RunFolder, path: Path, ranking: LazyRanking) -> LazyRanking:
    """Record in the run, at `path` with .json for .run.gz, which file the ranking comes from; return the ranking."""
    beside = path.with_name(path.name.removesuffix(".run.gz") + ".json")
    if not beside.exists():
        reference = RunReference(ranking.source, ranking.sha256, len(ranking), ranking.depth or 0)
        checksums.save(folder, beside, reference)
    return ranking


_POLL_SECONDS = 2.0  # between tries while another process asks the same model


class MadeRanking(msgspec.Struct, frozen=True, kw_only=True):
    """The queries that a teacher ranked for a stage, and how; stored beside the ranking in the run's folder."""

    asked: tuple[str, ...]  # queries, those that failed among them
    provenance: Provenance
    taken: TeacherCost = TeacherCost()
    asked_sha256: str = ""  # of these queries, by which a resumed run knows them without reading all of them


class _AskedQueries(msgspec.Struct, frozen=True):
    """What is read of `MadeRanking` first."""

    asked_sha256: str = ""


def _taken(made: MadeTeacher) -> TeacherCost:
    reports = made.reports.values()
    return TeacherCost(
        calls=sum(report.calls for report in reports),
        input_tokens=sum(report.usage.input_tokens for report in reports),
        output_tokens=sum(report.usage.output_tokens for report in reports),
        money=made.money,
        currency=made.provenance.currency,
    )


def rank_for_stage(
    context: RunContext, datasets: Mapping[str, Dataset], name: str, stage: Stage, queries: Sequence[str], *,
    in_validation: bool,
) -> Ranking:  # fmt: skip
    """Return a declared teacher's rankings for a stage, made where they are missing; failed queries are absent.

    Args:
        context: state of this attempt: the plan, the run's folder, the log, and the request to stop.
        datasets: name -> dataset, for all datasets of the run.
        name: name of the stage that learns from the teacher.
        stage: its settings, which name the teacher.
        queries: ids of the queries whose candidates the teacher ranks.
        in_validation: whether these are queries of the validation dataset.

    Raises:
        PausedError: the worker was asked to stop, or a cap was reached; what was answered is kept.
        CerankError: the teacher cannot be made.
    """
    path = context.folder.teacher(f"{name} in validation" if in_validation else name)
    beside = context.folder.teacher_record(f"{name} in validation" if in_validation else name)
    known = json_records.load_if_there(beside, _AskedQueries) if path.exists() else None
    if known is not None and known.asked_sha256 == sha256_lines(queries):
        return open_run_file(path, Path(context.plan.cache)).ranking
    before = json_records.load_if_there(beside, MadeRanking)
    asked_before = before.asked if before is not None and path.exists() else ()
    if not path.exists() or not set(queries) <= set(asked_before):
        every = tuple(dict.fromkeys((*asked_before, *queries)))
        made = _made(context, _request(context, datasets, stage, every, in_validation=in_validation), name)
        if not made.ranking:
            raise RunFailedError("the teacher ranked no query", where=f"stages.{name}.teacher")
        disk.make_folder(path.parent)
        record = MadeRanking(
            asked=every, provenance=made.provenance, taken=_taken(made), asked_sha256=sha256_lines(every)
        )
        checksums.save(context.folder, path.with_suffix(".repairs.json"), made.provenance.repairs)
        checksums.write(context.folder, path, write_run(made.ranking, "teacher"))
        checksums.save(context.folder, beside, record)  # last: it says which queries the ranking is of
    return open_run_file(path, Path(context.plan.cache)).ranking


def _request(
    context: RunContext, datasets: Mapping[str, Dataset], stage: Stage, queries: tuple[str, ...], *, in_validation: bool
) -> TeachRequest:
    plan = context.plan
    recipe = plan.recipe
    dataset, first = inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage)
    if in_validation:
        dataset, first = inputs.validation_dataset(recipe, stage), inputs.validation_first_stage(recipe)
    return TeachRequest(
        lab=context.folder.lab,
        cache=Path(plan.cache),
        name=stage.asked_teacher,
        teachers=recipe.teachers,
        dataset=datasets[dataset],
        first_stage=first,
        queries=queries,
        device=plan.device,
        threads=plan.threads,
        fetch=False,
    )


def _made(context: RunContext, request: TeachRequest, name: str) -> MadeTeacher:
    """Make the rankings, with progress on the heartbeat; waits while another process asks the same model."""
    context.heartbeat.enter("teacher", name, total=len(request.queries))
    done = 0

    def advance(progress: TeachingProgress) -> None:
        nonlocal done
        context.heartbeat.advance(progress.queries - done)
        done = progress.queries

    hooks = Hooks(progress=advance, should_stop=lambda: context.stop.reason)
    is_told = False
    while True:
        try:
            made = make(request, hooks)
            break
        except HeldError as error:
            if not is_told:
                context.log.event("waits for a teacher", f"{request.name}: {error.what}")
            is_told = True
            context.raise_if_stopped()
            time.sleep(_POLL_SECONDS)
        except StopTeachingError as error:
            context.stop.request(str(error))
            context.raise_if_stopped()
    if made.stopped:
        if not context.stop.reason:
            context.stop.request(made.stopped)
        context.raise_if_stopped()
    provenance = made.provenance
    failed = sum(provenance.failed.values())
    context.log.event(
        "teacher made",
        f"{request.name}: {len(made.ranking)} queries ranked, {failed} failed; {made.asked} calls made, "
        f"{made.reused} answers reused; passages went to {provenance.place}",
    )
    return made
