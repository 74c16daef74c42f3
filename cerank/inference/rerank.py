"""Re-rank: score the candidates of many queries with a cross-encoder, chunk by chunk, from their texts to their scores.

`rerank` reads top to bottom as it runs. A chunk of queries is scored in blocks of candidates by rank, each block from
the cache or through the model. `Scorer` is the model with its tokenizer: tokens -> batches by length -> scores. Where
it cuts documents into passages, what is scored, cached and stored are the passages, and only a finished chunk has
scores of documents: another aggregation needs no other scores.

Invariant: a pair's score depends only on the pairs of its block, so that a re-ranking which was cut short and resumed
writes the same bytes; on a CPU it does not depend on the number of threads either.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from cerank.core.passage_scores import Aggregation, document_scores, passage_id
from cerank.core.prefetch import made_ahead
from cerank.errors import RunFailedError
from cerank.inference.score_cache import BLOCK_DEPTH, Candidates, ScoreCache, Scores
from cerank.kernels.memory import is_out_of_memory, release_memory
from cerank.kernels.parallel import run_in_threads
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.forward_pass import ForwardPass, resolve_precision, token_budget
from cerank.models.load_model import load_reranker
from cerank.models.prompt_templates import Declaration
from cerank.tokenization.passage_windows import WindowsInUse
from cerank.tokenization.token_store import TokenStore
from cerank.tokenization.tokens import Pair, PairTokenizer

TextLookup = Callable[[Sequence[str]], Sequence[str]]  # returns the texts of ids, in the order of the ids

CHUNK = 32  # queries of a chunk: the unit of progress, of a request to stop, and of resuming
MIN_TOKEN_BUDGET = 512  # tokens at once; if not even these fit into memory, something else is wrong


class ChunkStore(Protocol):
    """Keeps the scores of finished chunks, for a re-ranking that is stopped and resumed."""

    def load(self, number: int) -> Scores | None:
        """Return the scores of the chunk of that number; None where it is not finished."""

    def save(self, number: int, scores: Scores) -> None:
        """Keep the scores of a finished chunk."""


class RerankedChunk(msgspec.Struct, frozen=True):
    """The scores of one chunk of queries, and what they cost."""

    candidates: dict[str, Sequence[str]]  # query id -> document ids, best first
    scores: Scores
    pairs: int  # pairs that went through the model; others came from the cache or the store
    seconds: float  # wall time of the chunk, tokenizing included
    passages: Scores = {}  # query id -> passage id -> score, where documents are cut into passages


class _Block(msgspec.Struct, frozen=True):
    """Candidates of neighboring ranks that are scored together."""

    candidates: Candidates
    query_texts: Sequence[str]  # part of the key in the cache; empty without one
    pairs: Sequence[Pair]  # tokens of the candidates or of their passages, unless the scores are known
    scored: Candidates  # query id -> ids of what is scored: the candidates or their passages, in the order of the pairs
    known: Scores | None  # scores from the cache


def rerank(
    scorer: Scorer,
    query_ids: Iterable[str],
    candidates_of: Callable[[str], Sequence[str]],
    queries: TextLookup,
    documents: TextLookup,
    *,
    cache: ScoreCache | None = None,
    store: ChunkStore | None = None,
    block_depth: int = BLOCK_DEPTH,
    numbers: Iterable[int] | None = None,
) -> Iterator[RerankedChunk]:
    """Yield the scores of the candidates of all queries, one chunk of queries after another, sorted by query id.

    Args:
        scorer: model that scores the pairs, with its tokenizer.
        query_ids: the queries, in any order.
        candidates_of: returns the ids of a query's candidates, best first.
        queries: returns the texts of query ids, in order.
        documents: returns the texts of document ids, in order.
        cache: where scores of whole blocks are looked up and kept; None computes all of them.
        store: where finished chunks are looked up and kept; None computes all of them.
        block_depth: number of candidates of a query in a block; 0 puts all of them into one.
        numbers: numbers of the chunks to score, from 0, where others score the rest; None scores all.

    Raises:
        RunFailedError: a score is not finite, so that nothing can be ranked by it.

    Example:
        >>> queries = {"q1": "what is a cross-encoder"}
        >>> documents = {"d1": "Otters sleep.", "d2": "It reads query and document together."}
        >>> candidates = {"q1": ["d1", "d2"]}
        >>> chunks = rerank(
        ...     Scorer.load("my-reranker"),
        ...     queries,
        ...     candidates.__getitem__,
        ...     lambda ids: [queries[query_id] for query_id in ids],
        ...     lambda ids: [documents[doc_id] for doc_id in ids],
        ... )
        >>> [list(chunk.scores["q1"]) for chunk in chunks]
        [['d1', 'd2']]
    """

    chunks = split_into_chunks(query_ids)

    def prepare(number: int) -> tuple[int, dict[str, Sequence[str]], Scores | None, list[_Block]]:
        """Return what can be done before the model is free: candidates, known scores, and the tokens of the others."""
        candidates = {query: candidates_of(query) for query in chunks[number]}
        stored = store.load(number) if store is not None else None
        blocks = []
        depth = max(map(len, candidates.values()), default=0)
        for start in range(0, depth if stored is None else 0, block_depth or max(1, depth)):
            stop = start + (block_depth or depth)
            block = {query: docs[start:stop] for query, docs in candidates.items() if len(docs) > start}
            texts = list(queries(list(block))) if cache else []
            known = cache.get(block, texts) if cache else None
            scored, pairs = scorer.tokenize_all(block, queries, documents) if known is None else ({}, [])
            blocks.append(_Block(block, texts, pairs, scored, known))
        return number, candidates, stored, blocks

    own_chunks = range(len(chunks)) if numbers is None else numbers
    began = time.perf_counter()
    # while a GPU scores one chunk, a thread tokenizes the next and another writes the last; a CPU has no core to spare
    is_gpu = scorer.device.type == "cuda"
    prepared = made_ahead(prepare, own_chunks) if is_gpu else map(prepare, own_chunks)
    with Writes(in_thread=is_gpu) as writes:
        for number, candidates, stored, blocks in prepared:
            pairs = 0
            scores: Scores = stored if stored is not None else {query: {} for query in candidates}
            for block in blocks:
                of_block = block.known
                if of_block is None:
                    values = iter(scorer.score_pairs(block.pairs))
                    of_block = {query: {doc: next(values) for doc in docs} for query, docs in block.scored.items()}
                    pairs += len(block.pairs)
                    if cache is not None and not scorer.is_reduced:
                        writes.do(cache.put, block.candidates, block.query_texts, of_block)
                for query, of_query in of_block.items():
                    scores[query].update(of_query)
            if store is not None and stored is None:
                writes.do(store.save, number, scores)
            ended = time.perf_counter()
            if scorer.tokens.windows_in_use is None:
                yield RerankedChunk(candidates, scores, pairs, ended - began)
            else:
                yield RerankedChunk(candidates, scorer.aggregated(scores), pairs, ended - began, scores)
            began = time.perf_counter()


def split_into_chunks(query_ids: Iterable[str]) -> list[list[str]]:
    """Return the queries, sorted by id, in chunks of `CHUNK`; always the same ones for the same queries."""
    by_id = sorted(query_ids)
    return [by_id[start : start + CHUNK] for start in range(0, len(by_id), CHUNK)]


def chunk_count(query_ids: Collection[str]) -> int:
    """Return the number of chunks of the queries."""
    return -(-len(query_ids) // CHUNK)


class Writes:
    """Writes one after the other, at once or in a thread; an error of the disk is raised by a later call or the end.

    Args:
        in_thread: whether the caller goes on meanwhile.
    """

    MOST_WAITING = 8  # writes; each holds its scores

    def __init__(self, *, in_thread: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "write") if in_thread else None
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Writes:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def do(self, write: Callable[..., object], *arguments: object) -> None:
        """Call `write` with the arguments, after all writes before it."""
        if self._thread is None:
            write(*arguments)
            return
        while len(self._waiting) >= self.MOST_WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(write, *arguments))


class Scorer:
    """A cross-encoder with its tokenizer, ready to score.

    Args:
        model: the model; it is in evaluation mode while it scores, and its mode is restored afterwards.
        tokens: tokenizes texts and joins them as pairs.
        device: device that the model is on, such as "cpu" or "cuda:0".
        precision: "fp32", "bf16", "auto", or on a GPU "fp16" or "tf32" (see `ForwardPass`); None is "auto" on a GPU,
            else "fp32". Scores are float32 in any case.

    Example:
        >>> scorer = Scorer.load("my-reranker")
        >>> scores = scorer.score([
        ...     ("what is a cross-encoder", "A cross-encoder reads query and document together."),
        ...     ("what is a cross-encoder", "Otters hold hands while they sleep."),
        ... ])
        >>> len(scores)
        2
    """

    def __init__(
        self, model: CrossEncoder, tokens: PairTokenizer, device: str = "cpu", precision: str | None = "fp32"
    ) -> None:
        self.device = torch.device(device)
        chosen = resolve_precision(precision, self.device, trains=False)
        self.model, self.tokens = model, tokens
        self.forward = ForwardPass(model, tokens, self.device, chosen)
        self._budget = token_budget(self.device)
        self.is_reduced = False  # whether memory was short: other batches give other last bits
        self.precision = self.forward.precision
        self.checkpoint = ""  # fingerprint of the checkpoint that `load` read: part of the key of cached scores
        self.aggregation: Aggregation = "MaxP"  # of the scores of passages, where documents are cut into passages
        self.top = 1  # passages of which the aggregation "TopMeanP" takes the mean

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        precision: str | None = "fp32",
        *,
        name: str = "",
        declared: Declaration | None = None,
    ) -> Scorer:
        """Return the scorer of a checkpoint that cerank wrote, or of any finished re-ranker.

        Args:
            folder: folder of the model, such as RUN/stages/2-distill/final.
            device: device to score on, such as "cpu" or "cuda:0".
            precision: "fp32", "bf16", "auto" and so on, as for `Scorer`.
            name: hub id, if it has one; published language models are known by it.
            declared: what a declaration file says about the model.

        Raises:
            MissingError: the folder holds no model.
            UsageError: the model has no trained head.
        """
        path = Path(folder)
        model, tokenizer, limits, sha256 = load_reranker(path, name, declared)
        scorer = cls(model.to(device), model.make_tokens(tokenizer, limits), device, precision)
        scorer.checkpoint = f"{sha256} {model.pooling} {msgspec.structs.astuple(limits)}"
        return scorer

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer of the checkpoint, as transformers loads it."""
        return self.tokens.tokenizer

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the scores of (query text, document text) pairs, in order; larger is more relevant."""
        self.tokens.use_token_store(None)  # texts serve as their own ids here: forget what ids meant before
        self.tokens.add("query", [query for query, _ in pairs], lambda texts: texts)
        self.tokens.add("document", [document for _, document in pairs], lambda texts: texts)
        scores = self.score_pairs([self.tokens.pair(query, document) for query, document in pairs])
        self.tokens.clear()
        return scores

    def tokenize(self, candidates: Candidates, queries: TextLookup, documents: TextLookup) -> list[Pair]:
        """Return the tokens of each pair of a query and one of its candidates, query by query.

        Args:
            candidates: query id -> ids of the documents to score.
            queries: returns the texts of query ids, in order.
            documents: returns the texts of document ids, in order.
        """
        self.tokens.add("query", list(candidates), queries)
        self.tokens.add("document", [doc for docs in candidates.values() for doc in docs], documents)
        return [self.tokens.pair(query, doc) for query, docs in candidates.items() for doc in docs]

    def tokenize_all(
        self, candidates: Candidates, queries: TextLookup, documents: TextLookup
    ) -> tuple[Candidates, list[Pair]]:
        """Return what is scored, query by query, and the tokens of each pair: of the candidates, or of their passages.

        Arguments as for `tokenize`.
        """
        if self.tokens.windows_in_use is None:
            return candidates, self.tokenize(candidates, queries, documents)
        self.tokens.add("query", list(candidates), queries)
        self.tokens.add("document", [doc for docs in candidates.values() for doc in docs], documents)
        scored: dict[str, list[str]] = {query: [] for query in candidates}
        pairs: list[Pair] = []
        for query, docs in candidates.items():
            for doc in docs:
                of_document = self.tokens.passages(query, doc)
                scored[query] += [passage_id(doc, number) for number in range(len(of_document))]
                pairs += of_document
        return scored, pairs

    def use_passages(self, in_use: WindowsInUse | None, aggregation: Aggregation = "MaxP", top: int = 1) -> None:
        """Forget all texts, and score the documents to come by their passages; None scores them whole.

        Args:
            in_use: how documents are cut into passages.
            aggregation: how the scores of passages become the score of their document.
            top: how many of them the aggregation "TopMeanP" takes.

        Raises:
            UsageError: a passage and a query do not fit into a pair.
        """
        self.tokens.use_windows(in_use)
        self.aggregation, self.top = aggregation, top

    def aggregated(self, passages: Scores) -> Scores:
        """Return the scores of documents from those of their passages."""
        return document_scores(passages, self.aggregation, self.top)

    @property
    def scored_text(self) -> str:
        """Return what decides scores beside the model and its lengths: how documents are cut; "" if they are not."""
        in_use = self.tokens.windows_in_use
        return "" if in_use is None else f" passages {msgspec.structs.astuple(in_use.windows)}"

    def score_candidates(self, candidates: Candidates, queries: TextLookup, documents: TextLookup) -> Scores:
        """Return query id -> document id -> score of the candidates of some queries; arguments as for `tokenize`.

        Where documents are cut into passages, the scores of these are aggregated.

        Raises:
            RunFailedError: a score is not finite, so that nothing can be ranked by it.
        """
        scored, pairs = self.tokenize_all(candidates, queries, documents)
        values = iter(self.score_pairs(pairs))
        scores = {query: {text: next(values) for text in texts} for query, texts in scored.items()}
        return scores if self.tokens.windows_in_use is None else self.aggregated(scores)

    def use_token_store(self, store: TokenStore | None) -> None:
        """Forget all texts, and read those of the next dataset from its token store, if it has one."""
        self.tokens.use_token_store(store)

    def clear(self) -> None:
        """Forget all texts; to be called between datasets, where the same id may stand for another text."""
        self.tokens.clear()

    def score_pairs(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the scores of pairs, in order; where the device's memory is short, fewer tokens go through at once.

        Raises:
            RunFailedError: a score is not finite.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            while True:
                try:
                    with self.forward.without_gradients():
                        scores = self._score_batches(pairs)
                    break
                except RuntimeError as error:
                    is_joint = self.model.lockstep is not None and self.model.lockstep.is_shared  # others wait in it
                    if is_joint or not is_out_of_memory(error) or self._budget <= MIN_TOKEN_BUDGET:
                        raise
                release_memory(self.device)
                self._budget //= 2
                self.is_reduced = True
        finally:
            self.model.train(was_training)
        if not bool(scores.isfinite().all()):
            is_fp16 = self.precision == "fp16"  # whose largest number is 65,504
            hint = (
                "it may be too large for fp16: take fp32"
                if is_fp16
                else "its weights are broken: train it again, or take it anew from where it came"
            )
            raise RunFailedError("the model gave a score that is not finite", hint=hint, code="score-not-finite")
        values: list[float] = scores.tolist()
        return values

    def wait_for_others(self) -> None:
        """Return once no process scores any more, where several compute the model together; each of them calls this."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            self.forward.wait_for_others()
        self.model.train(was_training)

    def _score_batches(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Return the scores (pairs,) on the CPU, from batches of pairs of about the same length."""
        out = torch.empty(len(pairs))
        with self.forward.scoring() as score:
            if self.forward.supports_threads:

                def score_batch(indices: Sequence[int]) -> None:
                    out[torch.tensor(indices)] = score([pairs[index] for index in indices])

                run_in_threads(score_batch, self.forward.batches(pairs, self._budget))
            else:
                # the largest first: if memory is short, then before the others were computed. One copy at the end: the
                # host would wait for each
                batches = self.forward.batches(pairs, self._budget)[::-1]
                parts = [score([pairs[index] for index in indices]) for indices in batches]
                if parts:
                    out[torch.tensor([index for indices in batches for index in indices])] = torch.cat(parts).cpu()
        return out
