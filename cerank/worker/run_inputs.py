"""What a run reads: datasets, candidates and teachers; the latter two are kept in the run as TREC runs.

An ingested run of millions of rows is not copied: the plan has its hash, and a small record names the file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cerank.core.rankings import Ranking, ordered
from cerank.errors import RunFailedError
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_text, trust_hashes
from cerank.models.bases import BaseFiles, locate
from cerank.planning import inputs
from cerank.recipes.schema import Stage
from cerank.retrieval import bm25, first_stage
from cerank.retrieval.teachers import Repairs, read_teacher
from cerank.runs import checksums
from cerank.runs.layout import RunFolder
from cerank.tokenization import token_store
from cerank.tokenization.token_store import TokenStore
from cerank.trec.mapped_run import MappedRanking
from cerank.trec.open_run import open_run_file
from cerank.trec.text_io import write_run
from cerank.worker import made_teachers
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

    def documents(self, dataset: str, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of documents, in order."""
        return self.datasets[dataset].documents.texts(doc_ids)

    def queries(self, dataset: str, query_ids: Sequence[str]) -> list[str]:
        """Return the texts of queries, in order."""
        texts = self.datasets[dataset].queries
        return [texts[query] for query in query_ids]

    def token_store(self, dataset: str, tokenizer: Any) -> TokenStore | None:
        """Return the stored tokens of a dataset's texts for this tokenizer; None if there are none."""
        return token_store.open_token_store(tokenizer, self.datasets[dataset], self._cache)

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
            if isinstance(ranking, MappedRanking):
                return _write_reference(self._folder, path, ranking)
            checksums.write(self._folder, path, write_run(ranking, first_stage_tag(first)))
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
            name: the stage's.
            stage: its settings.
            queries: whose candidates are to be ranked. A teacher from a file ranks what it ranks, whoever is asked for.
            in_validation: whether these are queries of the validation dataset.
        """
        if stage.teacher in self._plan.recipe.teachers:
            return made_teachers.rank_for_stage(
                self._context, self.datasets, name, queries, in_validation=in_validation
            )
        is_computed = stage.teacher == inputs.EMBEDDING
        path = self._folder.teacher(f"{name} in validation" if in_validation and is_computed else name)
        if not path.exists():
            disk.make_folder(path.parent)
            if is_computed:
                checksums.write(self._folder, path, self._embedding(name, stage, queries, in_validation))
            else:
                given = self._read_teacher(name, stage)
                if isinstance(given, MappedRanking):
                    return _write_reference(self._folder, path, given)
                checksums.write(self._folder, path, write_run(given, "teacher"))
                return given
        return open_run_file(path, self._cache).ranking

    def repairs(self, name: str) -> Repairs:
        """Return what was repaired in a stage's teacher, after `teacher` was called for it."""
        return json_records.load_if_there(self._folder.teacher(name).with_suffix(".repairs.json"), Repairs) or Repairs()

    def _read_teacher(self, name: str, stage: Stage) -> Ranking:
        teacher = read_teacher(stage.teacher, self.datasets[inputs.training_dataset(self._plan.recipe, stage)])
        repairs = teacher.repairs
        checksums.save(self._folder, self._folder.teacher(name).with_suffix(".repairs.json"), repairs)
        if teacher.ties:
            self._context.log.event("teacher ties", f"{name}: {teacher.ties}")
        if repairs.repaired:
            self._context.log.event(
                "teacher repaired",
                f"{name}: {repairs.repaired} of {len(teacher.ranking)} lists; {repairs.missing} candidates appended, "
                f"{repairs.repeated} repeats and {repairs.out_of_range} numbers out of range dropped",
            )
        return teacher.ranking

    def _embedding(self, stage_name: str, stage: Stage, queries: Sequence[str], in_validation: bool) -> bytes:
        """Return the embedding teacher's TREC run, from the cache if the same one was computed before."""
        from cerank.inference.embeddings import Embedder, distinct_documents, embedding_similarity
        from cerank.inference.score_cache import score_cache_key

        recipe = self._plan.recipe
        name, first = inputs.training_dataset(recipe, stage), inputs.training_first_stage(recipe, stage)
        if in_validation:
            name, first = recipe.data.validation, inputs.validation_first_stage(recipe)
        candidates = self.candidates(name, first).only(queries).top(stage.window[1])
        files = locate(inputs.EMBEDDING_BASE, fetch=False)
        documents = self.datasets[name].documents.fingerprint()
        identity = (
            *score_cache_key(
                files.sha256, documents, device=self._plan.device, threads=self._plan.threads, precision="fp32"
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
            Embedder(files, max_length=inputs.embedding_length(stage), device=self._plan.device),
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
    sha256: str  # of its bytes, as the plan has it
    queries: int  # of them, those that this run reads
    depth: int  # documents a query that it reads at most; 0 for all


def _write_reference(folder: RunFolder, path: Path, ranking: MappedRanking) -> MappedRanking:
    """Record in the run, at `path` with .json for .run.gz, which file the ranking comes from; return the ranking."""
    beside = path.with_name(path.name.removesuffix(".run.gz") + ".json")
    if not beside.exists():
        contents = ranking.store.contents
        reference = RunReference(contents.source, contents.sha256, len(ranking), ranking.depth or 0)
        checksums.save(folder, beside, reference)
    return ranking


def first_stage_tag(first: str) -> str:
    """Return the tag of a candidates' TREC run: the first stage's name without folders or blanks."""
    return "_".join(Path(first).name.split()) or "first-stage"
