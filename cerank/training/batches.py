"""Make the batch of a training step: sample its groups, tokenize their texts, and do so while the step before computes.

Invariant: the groups of a batch depend on the plan and the step alone; reading ahead changes when they are made, not
what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal

import msgspec

from cerank.core.groups import Group
from cerank.inference.rerank import TextLookup
from cerank.tokenization.tokens import Pair, PairTokenizer
from cerank.training.sampling.sampler import Sampler


class EncodedGroup(msgspec.Struct, frozen=True):
    """A query with its labeled candidates, and the token ids of each query-document pair."""

    group: Group
    pairs: tuple[Pair, ...]
    counts: tuple[int, ...] = ()  # passages of each candidate, where all are read: the pairs are those of passages

    @property
    def tokens(self) -> int:
        """Return the number of tokens of all pairs."""
        return sum(len(pair.ids) for pair in self.pairs)


class TrainingData(msgspec.Struct, frozen=True):
    """Everything a stage reads: its sampler of groups, its tokenizer, and the texts behind the ids."""

    sampler: Sampler
    tokens: PairTokenizer
    queries: TextLookup
    documents: TextLookup
    train_on: Literal["best", "first", "all"] = "best"  # what is read of a document that is cut into passages

    def encode(self, groups: Sequence[Group]) -> list[EncodedGroup]:
        """Return the groups with the token ids of their pairs."""
        self.tokens.add("query", [group.query_id for group in groups], self.queries)
        self.tokens.add("document", [doc for group in groups for doc in group.doc_ids], self.documents)
        if self.tokens.windows_in_use is not None:
            return [encode_passages(self.tokens, group, self.train_on) for group in groups]
        return encode_groups(self.tokens, groups)


def encode_groups(tokens: PairTokenizer, groups: Sequence[Group]) -> list[EncodedGroup]:
    """Return the groups with the token ids of their pairs, where `tokens` has read all texts already."""
    return [EncodedGroup(group, tuple(tokens.pair(group.query_id, doc) for doc in group.doc_ids)) for group in groups]


def encode_passages(tokens: PairTokenizer, group: Group, train_on: Literal["best", "first", "all"]) -> EncodedGroup:
    """Return a group with the token ids of one passage of each candidate, or of all; `tokens` knows all texts already.

    Positives and negatives are treated alike, so that no kind of passage tells them apart.
    """
    all_passages = [tokens.passages(group.query_id, doc) for doc in group.doc_ids]
    if train_on == "all":
        counts = tuple(map(len, all_passages))
        return EncodedGroup(group, tuple(pair for passages in all_passages for pair in passages), counts)
    chosen = [tokens.best_passage(group.query_id, doc) if train_on == "best" else 0 for doc in group.doc_ids]
    return EncodedGroup(group, tuple(passages[at] for passages, at in zip(all_passages, chosen, strict=True)))


def split_by_tokens(batch: Sequence[EncodedGroup], max_tokens: int) -> list[list[EncodedGroup]]:
    """Cut a batch, in its order, into microbatches of at most `max_tokens` tokens.

    A group is never cut, because its loss needs all of its scores: one that is larger than `max_tokens` is a microbatch
    of its own.

    >>> pair = Pair(ids=(1, 2, 3), split=2)
    >>> one = EncodedGroup(Group("q", ("d",), (1.0,)), (pair,))
    >>> [len(microbatch) for microbatch in split_by_tokens([one, one, one], max_tokens=6)]
    [2, 1]
    """
    microbatches: list[list[EncodedGroup]] = []
    size = 0
    for encoded in batch:
        if microbatches and size + encoded.tokens <= max_tokens:
            microbatches[-1].append(encoded)
            size += encoded.tokens
        else:
            microbatches.append([encoded])
            size = encoded.tokens
    return microbatches


class Prefetcher:
    """Makes the batch of the next step in a thread while the present step computes.

    An error in the making of a batch is raised in that batch's own step. While a batch is being made, only the thread
    may use the data's tokenizer: call `wait` before anything else does, such as a validation.

    Args:
        data: what the batches are made of.
        steps: the number of the last step; nothing is made beyond it.
    """

    def __init__(self, data: TrainingData, steps: int) -> None:
        self._data, self._steps = data, steps
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._next: tuple[int, Future[list[EncodedGroup]]] | None = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def batch(self, step: int) -> list[EncodedGroup]:
        """Return the batch of `step`, and begin with that of the next step."""
        ready, self._next = self._next, None
        future = ready[1] if ready and ready[0] == step else self._thread.submit(self._make, step)
        batch = future.result()
        if step < self._steps:
            self._next = step + 1, self._thread.submit(self._make, step + 1)
        return batch

    def wait(self) -> None:
        """Return once no batch is being made."""
        if self._next:
            wait([self._next[1]])

    def _make(self, step: int) -> list[EncodedGroup]:
        return self._data.encode(self._data.sampler.groups(step))
