"""Carries out the procedures of many queries: answers come from the store or from the engine, which is asked once.

Invariant: an answer is on disk before a procedure sees it; a query whose call fails has no ranking, and others go on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from cerank.errors import CerankError, RunFailedError
from cerank.retrieval.teachers import Repairs
from cerank.teachers.answer_store import AnswerStore, Call, ModelAnswer, key_of
from cerank.teachers.budget import Budget
from cerank.teachers.engines.engine import Engine, ServerError, StopTeachingError, Usage
from cerank.teachers.parsing.choices import Order, Preference
from cerank.teachers.parsing.permutations import Permutation
from cerank.teachers.procedures.steps import Asker, Outcome, Procedure, PromptedQuery
from cerank.teachers.reading import Value, explain, read
from cerank.text.safe_text import shown

FEWEST_FAILED = 5  # failed queries before the work stops because of their share
PROBE = "(probe)"  # the name of a query under which the answer to the small call is kept
QUERIES_IN_A_BATCH = 5000  # whose next calls go into a batch together; all their passages are in memory
_QUERIES_AT_ONCE = 2  # for each call that may run at once: a query waits for its own answers


class WindowReport(msgspec.Struct, frozen=True):
    """The repairs to one answer."""

    size: int  # passages that were shown
    repairs: Repairs = Repairs()
    is_unchanged: bool = False  # the order that was given came back
    is_reworded: bool = False  # in other words than "[2] > [1]"
    unlisted: int = 0  # identifiers without a log-probability
    is_bound: bool = False  # yes or no was not among the tokens


class QueryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The calls, tokens and repairs of one query, or why it has no ranking."""

    query: str
    calls: int = 0  # answers that its ranking rests on
    asked: int = 0  # calls that were made now
    usage: Usage = Usage()  # tokens of all calls
    failure: str = ""  # why it has no ranking
    detail: str = ""
    windows: tuple[WindowReport, ...] = ()  # only those in which something was repaired or unchanged


class TeachingProgress(msgspec.Struct, frozen=True):
    """Progress of the work: queries, calls, tokens and cost so far."""

    queries: int
    failed: int
    asked: int  # calls
    reused: int  # answers from the store
    usage: Usage
    cost: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The rankings of a teacher, and what they took."""

    outcomes: dict[str, Outcome]
    reports: dict[str, QueryReport]
    asked: int = 0
    reused: int = 0
    usage: Usage = Usage()
    cost: float | None = None
    seconds: float = 0.0  # sum of the durations of all calls
    stopped: str = ""  # why it ended before its end; "" if it is complete


class _CallFailedError(Exception):
    """A call has no answer; the query has no ranking."""

    def __init__(self, failure: str, detail: str) -> None:
        super().__init__(failure)
        self.failure, self.detail = failure, detail


class TeachingWork:
    """Ranks queries with an engine and a store.

    Args:
        procedure: procedure by which each query is ranked.
        asker: turns passages into calls: the prompts of the teacher.
        engine: model or server that answers the calls.
        store: answers on disk; a call that it holds is not made again.
        budget: limits on calls, tokens and money that no call may cross.
        probe: a small call by which the engine is tried before any other; its answer is kept, too.
        retry_failed: whether to make calls again that failed in an earlier attempt.
        should_stop: returns the reason to stop; "" as long as there is none.
        progress: called with the state of the work after each query.
        tell: called with what the user should know of the server.
    """

    def __init__(
        self,
        procedure: Procedure,
        asker: Asker,
        engine: Engine,
        store: AnswerStore,
        budget: Budget,
        *,
        probe: Call,
        retry_failed: bool = False,
        should_stop: Callable[[], str] = str,
        progress: Callable[[TeachingProgress], object] = lambda _progress: None,
        tell: Callable[[str], object] = lambda _text: None,
    ) -> None:
        self._procedure, self._asker, self._engine, self._store, self._budget = procedure, asker, engine, store, budget
        self._probe = probe
        self._retry_failed, self._should_stop, self._progress = retry_failed, should_stop, progress
        self._tell = tell
        self._outcomes: dict[str, Outcome] = {}
        self._reports: dict[str, QueryReport] = {}
        self._pending: dict[str, asyncio.Future[ModelAnswer]] = {}
        self._fresh: set[str] = set()  # keys that were asked now
        self._stopped = ""
        self._fatal: CerankError | None = None
        self._asked = self._reused = self._failed = 0
        self._seconds = 0.0

    def rank(self, queries: Iterable[PromptedQuery], count: int) -> Result:
        """Return the rankings of all queries, or of those that were done when something stopped the work.

        Args:
            queries: the queries, whose texts are read when their turn comes.
            count: number of queries.

        Raises:
            RunFailedError: more queries failed than the teacher declares.
            ServerError: the server answers no request.
        """
        asyncio.run(self._rank(queries, count))
        return self.result()

    def result(self) -> Result:
        """Return what has been ranked so far."""
        return Result(
            outcomes=self._outcomes,
            reports=self._reports,
            asked=self._asked,
            reused=self._reused,
            usage=self._budget.spent,
            cost=self._budget.cost,
            seconds=self._seconds,
            stopped=self._stopped,
        )

    async def _rank(self, queries: Iterable[PromptedQuery], count: int) -> None:
        waiting = iter(queries)
        try:
            await self._try_engine()
        except StopTeachingError as error:
            self._stopped = _why(error)
        except BaseException:
            await self._engine.close()
            raise
        spec = self._asker.spec
        workers = QUERIES_IN_A_BATCH if spec.batch else max(1, spec.concurrency * _QUERIES_AT_ONCE)
        tasks = [asyncio.ensure_future(self._worker(waiting)) for _ in range(min(workers, count))]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            await self._engine.close()
        fatal = self._fatal or self._too_many_failures()
        if fatal is not None:
            raise fatal

    async def _try_engine(self) -> None:
        """Find out what the engine offers by one small call, unless it is known from an earlier one.

        Raises:
            UsageError, ServerError: as the engine's `check_probe`.
            StopTeachingError: a cap leaves no call.
        """
        known = use_known_form(self._engine, self._probe, self._store.get)
        if known is not None:
            self._engine.check_probe(self._probe, known)
            return
        for form in range(self._engine.forms(self._probe)):
            self._engine.use_form(form)
            answer = await self._ask(PROBE, self._probe, self._key(self._probe))
            if not answer.failure:
                break
        self._engine.check_probe(self._probe, answer)
        if not _is_same_model(self._asker.spec.model, answer.model):
            self._tell(f"{self._engine.place} says that '{answer.model}' answers, not '{self._asker.spec.model}'")

    def _key(self, call: Call) -> str:
        return call_key(self._engine, call)

    async def _worker(self, waiting: Iterator[PromptedQuery]) -> None:
        while not self._is_stopping():
            query = next(waiting, None)
            if query is None:
                return
            await self._one(query)
            self._progress(self._now())
            if self._failed >= FEWEST_FAILED and self._fatal is None:
                self._fatal = self._too_many_failures()

    async def _one(self, query: PromptedQuery) -> None:
        """Rank one query; a stop leaves it out, its answers are in the store."""
        steps = self._procedure(query, self._asker)
        windows: list[WindowReport] = []
        usage = Usage()
        calls = new_calls = 0
        failure = detail = ""
        try:
            batch = next(steps)
            while True:
                replies = await self._replies(query.id, batch)
                calls += len(batch)
                new_calls += sum(reply.is_new for reply in replies)
                windows += filter(
                    None, (_report(call, reply.value) for call, reply in zip(batch, replies, strict=True))
                )
                for reply in replies:
                    usage = usage.plus(Usage(reply.answer.input_tokens, reply.answer.output_tokens))
                batch = steps.send([reply.value for reply in replies])
        except StopIteration as end:
            self._outcomes[query.id] = end.value
        except _CallFailedError as error:
            failure, detail = error.failure, error.detail
            self._failed += 1
        except StopTeachingError as error:
            self._stopped = self._stopped or _why(error)
            return
        except ServerError as error:
            self._fatal = self._fatal or error
            return
        self._reports[query.id] = QueryReport(
            query=query.id,
            calls=calls,
            asked=new_calls,
            usage=usage,
            failure=failure,
            detail=detail,
            windows=tuple(windows),
        )

    async def _replies(self, query: str, batch: Sequence[Call]) -> list[_Reply]:
        """Return the replies to calls that do not depend on one another; waits for all, even where one fails."""
        results = await asyncio.gather(*(self._answered(query, call) for call in batch), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, _Reply)]

    async def _answered(self, query: str, call: Call) -> _Reply:
        """Return what the answer to a call means, from the store or asked for now."""
        key = self._key(call)
        known = self._store.get(key)
        is_new = False
        if known is not None and self._retry_failed and key not in self._fresh and read(call, known).failure:
            known = None
        if known is None:
            pending = self._pending.get(key)
            if pending is not None:  # two queries, or two windows, with the same prompt
                known = await asyncio.shield(pending)
            else:
                known = await self._ask(query, call, key)
                is_new = True
        if not is_new:
            self._reused += 1
        reading = read(call, known)
        if reading.value is None:
            raise _CallFailedError(reading.failure, known.detail or _explained(reading.failure, known.text))
        return _Reply(reading.value, known, is_new)

    async def _ask(self, query: str, call: Call, key: str) -> ModelAnswer:
        """Ask the engine, keep the answer, and return it.

        Raises:
            StopTeachingError: something asks to stop, or a cap would be crossed.
        """
        if self._is_stopping():
            raise StopTeachingError(self._stopped or "another call failed")
        tokens, is_exact = self._engine.input_tokens(call)
        reserved = self._budget.reserve(tokens, call.max_output, is_exact=is_exact)
        if reserved is None:
            self._stopped = f"the next call could cross {self._budget.cap_in_words()}"
            raise StopTeachingError(self._stopped)
        future: asyncio.Future[ModelAnswer] = asyncio.get_running_loop().create_future()
        self._pending[key] = future
        try:
            answer = msgspec.structs.replace(await self._engine.ask(call, key), query=query)
            self._store.add(answer)
        except BaseException as error:
            self._budget.settle(reserved, Usage(), tokens)
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
                future.exception()  # whoever waits gets it; without a waiter it would be reported as lost
            raise
        finally:
            del self._pending[key]
        # a call without an answer may still be billed: count what was sent
        used = Usage(answer.input_tokens, answer.output_tokens) if not answer.failure else Usage(tokens, 0)
        self._budget.settle(reserved, used, tokens)
        self._asked += 1
        self._seconds += answer.seconds
        self._fresh.add(key)
        future.set_result(answer)
        return answer

    def _is_stopping(self) -> bool:
        self._stopped = self._stopped or self._should_stop()
        return bool(self._stopped) or self._fatal is not None

    def _now(self) -> TeachingProgress:
        done = len(self._reports)
        return TeachingProgress(done, self._failed, self._asked, self._reused, self._budget.spent, self._budget.cost)

    def _too_many_failures(self) -> RunFailedError | None:
        """Return the error that more queries failed than declared, with the reasons and their numbers; else None."""
        done, allowed = len(self._reports), self._asker.spec.max_failures
        if self._failed <= allowed * done:
            return None
        failed = [report for report in self._reports.values() if report.failure]
        (commonest, _), *_ = reasons = Counter(report.failure for report in failed).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        detail = next(report.detail for report in failed if report.failure == commonest)
        return RunFailedError(
            f"{self._failed} of {done} queries failed ({listed}), more than max_failures = {allowed:g}; {detail}",
            where="teacher",
            hint="answers are kept; --retry-failed asks again for those that failed",
            code="too-many-failures",
        )


class _Reply(msgspec.Struct, frozen=True):
    """An answer with its parsed value, and whether the call was made now or earlier."""

    value: Value
    answer: ModelAnswer
    is_new: bool


def _why(error: StopTeachingError) -> str:
    """Return why the work stops, without a hint: whoever tells it knows what continues it."""
    return f"{error.what} ({error.where})" if error.where else error.what


def _is_same_model(declared: str, answered: str) -> bool:
    """Return whether a server's name for a model may be that of the declared one, such as one with a date."""
    names = [name.lower().rpartition("/")[2] for name in (declared, answered)]
    return names[0] in names[1] or names[1] in names[0]


def _explained(failure: str, text: str) -> str:
    """Return what a failure means, with the beginning of the answer, if there is one."""
    words = " ".join(text.split())
    return f"{explain(failure)}; it begins: {shown(words, 100)!r}" if words else explain(failure)


def call_key(engine: Engine, call: Call) -> str:
    """Return the key under which the answer to a call is kept."""
    return key_of(engine.place, engine.request(call), call.sample)


def use_known_form(engine: Engine, probe: Call, get: Callable[[str], ModelAnswer | None]) -> ModelAnswer | None:
    """Let an engine send calls in the form in which its probe was answered before; return that answer, or None."""
    for form in range(engine.forms(probe)):
        engine.use_form(form)
        known = get(call_key(engine, probe))
        if known is not None and not known.failure:
            return known
    engine.use_form(0)
    return None


def _report(call: Call, value: Value) -> WindowReport | None:
    """Return what was repaired in an answer; None if there is nothing to report."""
    if isinstance(value, Permutation):
        report = WindowReport(call.size, value.repairs, value.is_unchanged, value.is_reworded)
    elif isinstance(value, Order):
        report = WindowReport(call.size, is_unchanged=value.order == tuple(range(call.size)), unlisted=value.missing)
    elif isinstance(value, Preference):
        report = WindowReport(call.size, is_bound=value.is_bound)
    else:
        return None
    return report if report != WindowReport(call.size) else None


def summed(reports: Sequence[QueryReport]) -> Repairs:
    """Return the repairs of all windows, added up."""
    total = Repairs()
    for report in reports:
        for window in report.windows:
            total = total.plus(window.repairs)
    return total
