"""Score query-document pairs with a cross-encoder.

queries and candidates -> tokens -> batches by length -> scores -> {query id: {document id: score}}

Invariant: a pair's score depends only on the pairs that are passed in one call, so that a re-ranking which was cut
short and resumed writes the same bytes; on a CPU it does not depend on the number of threads either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from cerank.errors import RunFailedError
from cerank.kernels.parallel import run_in_threads
from cerank.models.bases import BaseFiles
from cerank.models.cross_encoder import CrossEncoder, load_tokenizer
from cerank.models.forward_pass import ForwardPass, mean_pooler, token_budget
from cerank.models.load_model import load_reranker
from cerank.models.prompt_templates import Declaration
from cerank.tokenization.token_store import TokenStore
from cerank.tokenization.tokens import Pair, PairTokenizer, batches_by_length, even_batches

TextLookup = Callable[[Sequence[str]], Sequence[str]]  # texts of ids, in the order of the ids

MIN_TOKEN_BUDGET = 512  # tokens at once; if not even these fit into memory, something else is wrong


class Scorer:
    """A cross-encoder with its tokenizer, ready to score.

    Args:
        model: the model; it is in evaluation mode while it scores, and its mode is restored afterwards.
        tokens: tokenizes texts and joins them as pairs.
        device: device that the model is on, such as "cpu" or "cuda:0".
        precision: "fp32", "bf16" or "auto" (see `ForwardPass`); scores are float32 in any case.

    Example:
        >>> scorer = Scorer.load("RUN/stages/2-distill/final")  # doctest: +SKIP
        >>> scorer.score([  # doctest: +SKIP
        ...     ("what is a cross-encoder", "A cross-encoder reads query and document together."),
        ...     ("what is a cross-encoder", "Otters hold hands while they sleep."),
        ... ])
        [7.31, -4.02]
    """

    def __init__(
        self, model: CrossEncoder, tokens: PairTokenizer, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        place = torch.device(device)
        self._model, self._tokens = model, tokens
        self._forward, self._budget = ForwardPass(model, tokens, place, precision), token_budget(place)
        self.precision = self._forward.precision
        self.checkpoint = ""  # fingerprint of the checkpoint that `load` read: part of the key of cached scores

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        precision: str = "fp32",
        *,
        name: str = "",
        declared: Declaration | None = None,
    ) -> Scorer:
        """Return the scorer of a checkpoint that cerank wrote, or of any finished re-ranker.

        Args:
            folder: folder of the model, such as RUN/stages/2-distill/final.
            device: device to score on.
            precision: "fp32", "bf16" or "auto".
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
        return self._tokens.tokenizer

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the scores of (query text, document text) pairs, in order; larger is more relevant."""
        self._tokens.use_token_store(None)  # texts serve as their own ids here: forget what ids meant before
        self._tokens.add("query", [query for query, _ in pairs], lambda texts: texts)
        self._tokens.add("document", [document for _, document in pairs], lambda texts: texts)
        scores = self._scores([self._tokens.pair(query, document) for query, document in pairs])
        self._tokens.clear()
        return scores

    def score_candidates(
        self, candidates: Mapping[str, Sequence[str]], queries: TextLookup, documents: TextLookup
    ) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> score of the candidates of some queries.

        Args:
            candidates: query id -> ids of the documents to score.
            queries: returns the texts of query ids, in order.
            documents: returns the texts of document ids, in order.

        Raises:
            RunFailedError: a score is not finite, so that nothing can be ranked by it.
        """
        self._tokens.add("query", list(candidates), queries)
        self._tokens.add("document", [doc for docs in candidates.values() for doc in docs], documents)
        ids = [(query, doc) for query, docs in candidates.items() for doc in docs]
        values = self._scores([self._tokens.pair(query, doc) for query, doc in ids])
        scores: dict[str, dict[str, float]] = {query: {} for query in candidates}
        for (query, doc), value in zip(ids, values, strict=True):
            scores[query][doc] = value
        return scores

    def use_token_store(self, store: TokenStore | None) -> None:
        """Forget all texts, and read those of the next dataset from its token store, if it has one."""
        self._tokens.use_token_store(store)

    def clear(self) -> None:
        """Forget all texts; to be called between datasets, where the same id may stand for another text."""
        self._tokens.clear()

    @torch.inference_mode()
    def _scores(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the scores of pairs, in order; where the device's memory is short, fewer tokens go through at once."""
        out = torch.empty(len(pairs))
        was_training = self._model.training
        self._model.eval()
        try:
            while True:
                try:
                    self._fill(out, pairs)
                    break
                except torch.OutOfMemoryError:
                    if self._budget <= MIN_TOKEN_BUDGET:
                        raise
                self._budget //= 2
        finally:
            self._model.train(was_training)
        if not bool(out.isfinite().all()):
            raise RunFailedError(
                "the model gave a score that is not finite", hint="its weights are broken; train again"
            )
        scores: list[float] = out.tolist()
        return scores

    def _fill(self, out: torch.Tensor, pairs: Sequence[Pair]) -> None:
        """Write the scores of `pairs` to `out` (pairs,)."""
        with self._forward.scoring() as score:

            def score_batch(indices: Sequence[int]) -> None:
                out[torch.tensor(indices)] = score([pairs[index] for index in indices]).cpu()

            batches = self._forward.batches(pairs, self._budget)
            if self._forward.supports_threads:
                run_in_threads(score_batch, batches)
            else:
                for indices in batches:
                    score_batch(indices)


class Embedder:
    """A sentence embedder: the mean of a text's last hidden states, scaled to length 1, as all-MiniLM-L6-v2 has it.

    Args:
        files: files of the model.
        max_length: tokens that a text is cut at; at most 256, where that embedder's own training ended.
        device: device to compute on.
    """

    def __init__(self, files: BaseFiles, *, max_length: int, device: str = "cpu") -> None:
        from transformers import AutoModel

        options = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True}
        model = AutoModel.from_pretrained(files.folder, dtype=torch.float32, **options)
        self._encoder: Any = model.to(device).eval()
        self._tokenizer = load_tokenizer(files.folder)
        self._max_length = min(max_length, 256)

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str], on_batch: Callable[[int], object] = int) -> torch.Tensor:
        """Return (texts, hidden size), each row of length 1.

        Args:
            texts: any number of texts.
            on_batch: called after each batch, by any thread, with its number of texts.
        """
        rows = self._tokenizer(list(texts), truncation=True, max_length=self._max_length, verbose=False)["input_ids"]
        out = torch.empty(len(rows), self._encoder.config.hidden_size)
        means_of = mean_pooler(self._encoder)

        def embed_batch(indices: Sequence[int]) -> None:
            means = means_of([Pair(tuple(rows[index]), len(rows[index])) for index in indices])
            out[torch.tensor(indices)] = torch.nn.functional.normalize(means, dim=1).cpu()
            on_batch(len(indices))

        lengths, device = [len(row) for row in rows], self._encoder.device
        if device.type == "cpu":
            run_in_threads(embed_batch, even_batches(lengths, token_budget(device)))
        else:
            for batch in batches_by_length(lengths, token_budget(device)):
                embed_batch(batch)
        return out


def distinct_documents(candidates: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of all documents of some lists, each once, in the order of ids."""
    return sorted({doc for docs in candidates.values() for doc in docs})


def embedding_similarity(
    embedder: Embedder,
    candidates: Mapping[str, Sequence[str]],
    queries: TextLookup,
    documents: TextLookup,
    on_batch: Callable[[int], object] = int,
) -> dict[str, dict[str, float]]:
    """Return query id -> document id -> cosine similarity of their sentence embeddings, from -1 to 1.

    Args:
        embedder: computes the embeddings; it encodes each query and each document once.
        candidates: query id -> document ids.
        queries: returns the texts of query ids, in order.
        documents: returns the texts of document ids, in order.
        on_batch: called after each batch, by any thread, with its number of texts.
    """
    doc_ids = distinct_documents(candidates)
    of_queries = embedder.embeddings(queries(list(candidates)), on_batch)
    of_documents = embedder.embeddings(documents(doc_ids), on_batch)
    row = {doc: at for at, doc in enumerate(doc_ids)}
    similarities: dict[str, dict[str, float]] = {}
    for at, (query, docs) in enumerate(candidates.items()):
        values = of_documents[torch.tensor([row[doc] for doc in docs], dtype=torch.long)] @ of_queries[at]
        similarities[query] = dict(zip(docs, values.tolist(), strict=True))
    return similarities
