"""Makes a teacher's rankings of the candidates of queries, as a recipe declares it.

Invariant: what was answered before is not asked again; whatever ends the work, answers and rankings so far are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import cerank
from cerank.core.rankings import Ranking, RankingOfKept, ordered
from cerank.errors import UsageError
from cerank.files.hashing import sha256_json
from cerank.files.json_records import load_if_there, timestamp
from cerank.retrieval import first_stage
from cerank.teachers import declared, prompts, ranking_files, secrets
from cerank.teachers.answer_store import AnswerStore, Call
from cerank.teachers.budget import Budget, Caps, Price, price_missing, price_of, price_share
from cerank.teachers.engines.batch_records import BatchRecords
from cerank.teachers.engines.batch_server import BatchServer
from cerank.teachers.engines.engine import Engine, Usage
from cerank.teachers.procedures import fusion
from cerank.teachers.procedures.by_kind import procedure_of
from cerank.teachers.procedures.steps import Asker, Outcome, Procedure, PromptedQuery
from cerank.teachers.ranking_files import Provenance
from cerank.teachers.requests import Hooks, TeachRequest
from cerank.teachers.work import QueryReport, Result, TeachingWork
from cerank.text.safe_text import shown

_PROBE_QUERY = "capital of France"
_PROBE_PASSAGES = ("Paris is the capital of France.", "Bananas are rich in potassium.")


class MadeTeacher(msgspec.Struct, frozen=True, kw_only=True):
    """A teacher's rankings of the queries that were asked for."""

    ranking: Ranking
    reports: dict[str, QueryReport]
    provenance: Provenance
    folder: Path
    asked: int = 0  # calls made now
    reused: int = 0  # answers from the store
    stopped: str = ""  # why it is not complete
    money: float | None = None  # price of all answers that the ranking rests on; None without one


def candidates_of(request: TeachRequest) -> Ranking:
    """Return what the teacher ranks: the first documents of the first stage that have a text.

    Raises:
        UsageError: no such first stage, or none of its documents has a text.
    """
    ranking = first_stage.candidates(
        request.dataset, request.first_stage, request.spec.depth, request.cache, request.queries
    )
    with_texts = RankingOfKept(ranking, request.dataset.documents.__contains__)
    if not with_texts:
        named = next(doc for docs in ranking.values() for doc in docs)
        what = f"no candidate of first stage '{shown(request.first_stage, 120)}' has a text in {request.dataset.name}"
        hint = f"is the run from this collection? It names {shown(named, 40)}"
        raise UsageError(what, hint=hint, code="no-candidate-texts")
    return with_texts


def ranked_queries(request: TeachRequest, before: Ranking) -> Iterator[PromptedQuery]:
    """Yield each query with its passages as prompts show them; texts are read when their turn comes."""
    dataset, words = request.dataset, request.spec.passage_words
    for query, docs in before.items():
        passages = tuple(prompts.clean_passage(text, words) for text in dataset.documents.texts(docs))
        yield PromptedQuery(query, dataset.queries[query], passages)


def make(request: TeachRequest, hooks: Hooks | None = None) -> MadeTeacher:
    """Return the teacher's rankings, made where they are missing, and keep them in the lab.

    Raises:
        UsageError: the teacher cannot work as declared: no price for a cap, no log-probabilities on its server.
        MissingError: no key, no model in process.
        RunFailedError, ServerError: too many failures, or a server that answers no request.
        HeldError: another process asks the same model.
    """
    hooks = hooks or Hooks()
    spec = request.spec
    if spec.kind == "ensemble":
        return _make_ensemble(request, hooks)
    before = candidates_of(request)
    if spec.kind == "cross-encoder":
        from cerank.teachers import cross_encoder_scores

        scores = cross_encoder_scores.scores_of(request, before, hooks)
        reports = {query: QueryReport(query=query) for query in scores}
        return _saved(request, ordered(scores, before), reports)
    session = Session(request, before, hooks)
    try:
        result = session.carry_out(procedure_of(spec))
    except BaseException:
        partial = session.interrupted
        if partial is not None:
            _saved(request, ranking_of(partial.outcomes, before), partial.reports, session.price)
        raise
    made = _saved(request, ranking_of(result.outcomes, before), result.reports, session.price)
    return msgspec.structs.replace(made, asked=result.asked, reused=result.reused, stopped=result.stopped)


class Session:
    """Carries out procedures for the queries of a request, under one budget.

    Args:
        request: names the teacher, which must ask a language model, and the queries.
        before: candidates of each query, in the order in which they are shown at first.
        hooks: functions that report progress and ask whether to stop.

    Raises:
        UsageError: a cap on money without a price.
    """

    def __init__(self, request: TeachRequest, before: Ranking, hooks: Hooks) -> None:
        self.request, self.spec = request, request.spec
        self.price = price_of(self.spec, request.prices)
        self.interrupted: Result | None = None  # what was done when an error ended it
        self._before, self._hooks = before, hooks
        caps = request.caps or Caps.of(self.spec)
        if caps.cost and self.price is None:
            raise price_missing(self.spec, request.prices)
        self._budget = Budget(caps, self.price, price_share(self.spec, self.price))

    def carry_out(
        self, procedure: Procedure, *, sample: int = 0, prompted: Sequence[PromptedQuery] | None = None
    ) -> Result:
        """Return what a procedure gives for every query; raises as `TeachingWork.rank`.

        Args:
            procedure: procedure by which each query is ranked.
            sample: number of the answer, from 0, where the same prompts are asked several times.
            prompted: what is asked about in place of the request's queries with their candidates.
        """
        request, hooks, spec = self.request, self._hooks, self.spec
        engine = hooks.engine(spec) if hooks.engine else engine_of(request, hooks=hooks)
        asker = Asker(spec, prompts.template_of(spec), request.sample or sample)
        path = declared.answers_file(request.lab, engine.place, spec.model)
        with AnswerStore(path, datetime.now(UTC)) as store:
            if isinstance(engine, BatchServer):
                engine.is_answered = lambda key: store.get(key) is not None
            work = TeachingWork(
                procedure, asker, engine, store, self._budget,
                probe=probe_call(msgspec.structs.replace(asker, sample=0)), retry_failed=request.retry_failed,
                should_stop=hooks.should_stop, progress=hooks.progress, tell=hooks.tell,
            )  # fmt: skip
            try:
                if prompted is not None:
                    return work.rank(prompted, len(prompted))
                return work.rank(ranked_queries(request, self._before), len(self._before))
            except BaseException:
                self.interrupted = work.result()
                raise


def probe_call(asker: Asker) -> Call:
    """Return the small call, of the teacher's own form, by which a server is tried."""
    single = asker.template.shows_one
    query = PromptedQuery("", _PROBE_QUERY, _PROBE_PASSAGES)
    return asker.call(query, (0,) if single else (0, 1), 32, 10)


def engine_of(request: TeachRequest, *, with_key: bool = True, hooks: Hooks | None = None) -> Engine:
    """Return what answers the calls of a teacher: its server, that server's batches, or its model in this process.

    Args:
        request: request that names the teacher.
        with_key: whether the server's key is needed; False if no call will be made.
        hooks: functions that report progress and ask whether to stop, which a batch does while it waits.

    Raises:
        MissingError: the key or the model is not there.
    """
    spec = request.spec
    if spec.is_local:
        from cerank.teachers.engines.local_model import LocalModel

        return LocalModel(spec, request.device, fetch=request.fetch)
    from cerank.teachers.engines.local_model import counter_of
    from cerank.teachers.engines.openai_server import OpenAIServer

    name = spec.api_key if with_key else ""
    key = secrets.find_key(name, os.environ, secrets.keyring_file())
    server = OpenAIServer(spec, key, tokens_of=counter_of(spec.model))
    if not spec.batch:
        return server
    hooks = hooks or Hooks()
    records = BatchRecords(declared.batches_folder(request.lab, server.place, spec.model))
    return BatchServer(server, records, attempts=spec.attempts, should_stop=hooks.should_stop, tell=hooks.tell)


def ranking_of(outcomes: Mapping[str, Outcome], before: Ranking) -> Ranking:
    """Return outcomes as a ranking: by scores where there are some, else with n for the best of n documents."""
    documents: dict[str, Sequence[str]] = {}
    scores: dict[str, Sequence[float]] = {}
    for query in before:
        outcome = outcomes.get(query)
        if outcome is None:
            continue
        docs = before[query]
        if outcome.scores:
            row = {doc: outcome.scores[place] for place, doc in enumerate(docs)}
            single = ordered({query: row}, before)
            documents[query], scores[query] = single[query], single.scores(query)
        else:
            documents[query] = [docs[place] for place in outcome.order]
            scores[query] = [float(len(docs) - rank) for rank in range(len(docs))]
    return Ranking(documents, scores)


def _make_ensemble(request: TeachRequest, hooks: Hooks) -> MadeTeacher:
    """Make each member's rankings and merge them; a query that one member lacks is left out."""
    made: list[MadeTeacher] = []
    for member in request.spec.members:
        hooks.tell(f"teacher {member}")
        member_made = make(msgspec.structs.replace(request, name=member, depth=request.spec.depth), hooks)
        made.append(member_made)
        if member_made.stopped:
            return msgspec.structs.replace(member_made, ranking=Ranking({}, {}))
    shared = [query for query in made[0].ranking if all(query in other.ranking for other in made)]
    if not shared:
        raise UsageError("no query is ranked by all members of the ensemble", where=f"teachers.{request.name}")
    merged = fusion.merge([member_made.ranking.only(shared) for member_made in made], request.spec.fusion)
    reports = {query: _of_members(query, made) for query in shared}
    result = _saved(request, merged, reports)
    if None not in {member_made.money for member_made in made if member_made.provenance.calls}:
        result = msgspec.structs.replace(result, money=sum(member_made.money or 0.0 for member_made in made))
    calls, reused = sum(member_made.asked for member_made in made), sum(member_made.reused for member_made in made)
    return msgspec.structs.replace(result, asked=calls, reused=reused)


def _of_members(query: str, made: Sequence[MadeTeacher]) -> QueryReport:
    """Return what the members of an ensemble were asked about a query, together."""
    reports = [member_made.reports[query] for member_made in made if query in member_made.reports]
    usage = Usage()
    for report in reports:
        usage = usage.plus(report.usage)
    calls, new_calls = sum(report.calls for report in reports), sum(report.asked for report in reports)
    return QueryReport(query=query, calls=calls, asked=new_calls, usage=usage)


def _saved(
    request: TeachRequest, ranking: Ranking, reports: Mapping[str, QueryReport], price: Price | None = None
) -> MadeTeacher:
    """Add rankings to those that the lab has of the teacher, and return the new ones."""
    spec, dataset = request.spec, request.dataset
    teachers = {**request.teachers, request.name: spec}
    identity = declared.identity(spec, teachers, dataset, request.first_stage)
    if request.sample:
        identity = sha256_json([identity, request.sample])
    folder = declared.ranking_folder(request.lab, request.name, identity)
    every = {**ranking_files.load_reports(folder), **reports}
    before = load_if_there(folder / ranking_files.PROVENANCE, Provenance)
    facts = ranking_files.counts(every)
    usage = facts["usage"]
    provenance = Provenance(
        name=request.name,
        identity=identity,
        kind=spec.kind,
        model=spec.model,
        place=spec.server or "in process",
        has_scores=spec.has_scores,
        decisive=declared.decisive_parts(spec, teachers),
        documents=dataset.documents.fingerprint(),
        datasets=tuple(dict.fromkeys((*(before.datasets if before else ()), dataset.name))),
        first_stage=request.first_stage,
        cost=price.cost(usage) * price_share(spec, price) if price else None,  # type: ignore[arg-type]
        currency=price.currency if price else "",
        price_date=price.date if price else "",
        created=timestamp(datetime.now(UTC)),
        version=cerank.__version__,
        **facts,  # type: ignore[arg-type]
    )
    if reports:
        ranking_files.save(folder, ranking_files.merged(ranking_files.load_ranking(folder), ranking), every, provenance)
    of_these = ranking_files.counts(reports)["usage"]
    money = price.cost(of_these) * price_share(spec, price) if price else None  # type: ignore[arg-type]
    return MadeTeacher(ranking=ranking, reports=dict(reports), provenance=provenance, folder=folder, money=money)
