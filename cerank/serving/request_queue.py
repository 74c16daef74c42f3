"""Score the pairs of many requests together: one thread owns the model and takes what waits, up to a batch.

Invariant: a request's scores are those that the model gives to its pairs; with whom they are computed moves them by the
last bits of a float32 at most, as the batches of a re-ranking do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import msgspec

Pairs = Sequence[tuple[str, str]]  # (query, document)


class QueueFullError(Exception):
    """So many pairs wait that another request would wait too long."""


class QueueClosedError(Exception):
    """The server is shutting down and takes no request any more."""


class QueueCounts(msgspec.Struct):
    """What was done so far."""

    requests: int = 0
    pairs: int = 0
    batches: int = 0
    seconds: float = 0.0  # of scoring


class _Waiting(NamedTuple):
    pairs: Pairs
    answer: Future[list[float]]


class RequestQueue:
    """Requests that wait for the model.

    Args:
        score: returns the scores of pairs, in order; called from one thread only.
        batch_pairs: pairs that are scored at once, if so many wait; a larger request is scored alone.
        waiting_pairs: pairs that may wait; more are refused.
    """

    def __init__(self, score: Callable[[Pairs], list[float]], *, batch_pairs: int, waiting_pairs: int) -> None:
        self._score, self._batch_pairs, self._most = score, batch_pairs, waiting_pairs
        self._waiting: deque[_Waiting] = deque()
        self._pairs_waiting, self._is_closed = 0, False
        self._changed = threading.Condition()
        self.counts = QueueCounts()
        self._thread = threading.Thread(target=self._work, name="score", daemon=True)
        self._thread.start()

    @property
    def pairs_waiting(self) -> int:
        """Return the number of pairs that wait, without those that are being scored."""
        return self._pairs_waiting

    def submit(self, pairs: Pairs) -> Future[list[float]]:
        """Return the scores to come.

        Raises:
            QueueFullError: too many pairs wait; an empty queue takes even a request that is larger than the limit.
            QueueClosedError: the queue was closed.
        """
        answer: Future[list[float]] = Future()
        with self._changed:
            if self._is_closed:
                raise QueueClosedError
            if self._waiting and self._pairs_waiting + len(pairs) > self._most:
                raise QueueFullError
            self._waiting.append(_Waiting(pairs, answer))
            self._pairs_waiting += len(pairs)
            self._changed.notify_all()
        return answer

    def close(self) -> None:
        """Take no more requests, and return once all that wait are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            pairs = [pair for request in batch for pair in request.pairs]
            began = time.perf_counter()
            try:
                scores = self._score(pairs)
            except Exception as error:  # noqa: BLE001 - it goes to those who asked, and the thread lives on
                self._fail(batch, error)
                continue
            self.counts.seconds += time.perf_counter() - began
            self.counts.requests += len(batch)
            self.counts.pairs += len(pairs)
            self.counts.batches += 1
            start = 0
            for request in batch:
                request.answer.set_result(scores[start : start + len(request.pairs)])
                start += len(request.pairs)

    def _fail(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Hand an error on; of several requests each is tried alone, so that one cannot spoil the others."""
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
            return
        for request in batch:
            try:
                request.answer.set_result(self._score(request.pairs))
            except Exception as own:  # noqa: BLE001 - as above
                request.answer.set_exception(own)

    def _next(self) -> list[_Waiting]:
        """Return the requests to score together, the oldest first; none once the queue is closed and empty."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            batch: list[_Waiting] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].pairs) <= self._batch_pairs):
                request = self._waiting.popleft()
                size += len(request.pairs)
                batch.append(request)
            self._pairs_waiting -= size
            return batch
