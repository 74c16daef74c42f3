"""Scores of query-document pairs by a cross-encoder, in canonical batches.

Invariant: a pair's score depends on the pairs of its own chunk of queries alone, so that a re-ranking that was cut
short and resumed writes the same bytes; on a CPU it depends on no number of threads either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cerank.errors import RunFailedError
from cerank.kernels.parallel import side_by_side
from cerank.models.bases import BaseFiles, fingerprint
from cerank.models.cross_encoder import CrossEncoder, Mark, load, tokenizer_of
from cerank.models.forward_pass import Forward, budget_of, means_by
from cerank.tokenization.token_store import TokenStore
from cerank.tokenization.tokens import Pair, Tokens, batches_by_length, even_batches

Texts = Callable[[Sequence[str]], Sequence[str]]


LEAST_BUDGET = 512  # tokens at once; where not even these fit, something else is wrong


class Scorer:
    """A model with its tokenizer, ready to score.

    Args:
        model: in evaluation mode while it scores; its mode is restored afterwards.
        tokens: assembles pairs; shared with training where there is one.
        device: where the model is.
        precision: "fp32", "bf16" or "auto" (see `Forward`); scores are float32 whichever it is.
    """

    def __init__(self, model: CrossEncoder, tokens: Tokens, device: str = "cpu", precision: str = "fp32") -> None:
        self._model, self._tokens = model, tokens
        place = torch.device(device)
        self._forward, self._budget = Forward(model, tokens, place, precision), budget_of(place)
        self.precision = self._forward.precision
        self.checkpoint = ""  # the fingerprint of what `load` read, for scores that are kept

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", precision: str = "fp32") -> Scorer:
        """The scorer of a checkpoint that cerank wrote.

        Raises:
            MissingError: no such checkpoint.
        """
        path = Path(folder)
        mark = Mark(path)
        sha256 = fingerprint(path)
        model = load(BaseFiles(path.name, path, mark.pooling, sha256), mark.pooling, seed=0).to(device)
        lengths = (mark.max_length, mark.max_query_length, mark.max_document_length, mark.truncation)
        scorer = cls(model, Tokens(tokenizer_of(path), *lengths), device, precision)
        scorer.checkpoint = f"{sha256} {mark.pooling} {lengths}"
        return scorer

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Scores of (query text, document text) pairs, in order; larger is more relevant."""
        self._tokens.read_from(None)  # texts are their own keys here, and must not meet the ids of an earlier call
        self._tokens.add("query", [query for query, _ in pairs], lambda texts: texts)
        self._tokens.add("document", [document for _, document in pairs], lambda texts: texts)
        scores = self._scores([self._tokens.pair(query, document) for query, document in pairs])
        self._tokens.forget()
        return scores

    def read_from(self, store: TokenStore | None) -> None:
        """Drops the texts it remembers by id, and takes those of the next dataset from its store, if it has one."""
        self._tokens.read_from(store)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer it reads texts with."""
        return self._tokens.tokenizer

    def forget(self) -> None:
        """Drops the texts it remembers by id; to be called between datasets, whose ids may mean other texts."""
        self._tokens.forget()

    def chunk(
        self, wanted: Mapping[str, Sequence[str]], queries: Texts, documents: Texts
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score for one chunk of queries.

        Args:
            wanted: query id -> document ids to score.
            queries: texts of query ids, in order.
            documents: texts of document ids, in order.

        Raises:
            RunFailedError: a score is not finite; nothing can be ranked by it.
        """
        self._tokens.add("query", list(wanted), queries)
        self._tokens.add("document", [doc for docs in wanted.values() for doc in docs], documents)
        keys = [(query, doc) for query, docs in wanted.items() for doc in docs]
        scores = self._scores([self._tokens.pair(query, doc) for query, doc in keys])
        out: dict[str, dict[str, float]] = {query: {} for query in wanted}
        for (query, doc), score in zip(keys, scores, strict=True):
            out[query][doc] = score
        return out

    @torch.inference_mode()
    def _scores(self, pairs: Sequence[Pair]) -> list[float]:
        out = torch.empty(len(pairs))
        was_training = self._model.training
        self._model.eval()
        try:
            while not self._scored(pairs, out):
                self._budget //= 2
        finally:
            self._model.train(was_training)
        if not bool(out.isfinite().all()):
            raise RunFailedError(
                "the model gave a score that is not finite", hint="its weights are broken; train again"
            )
        scores: list[float] = out.tolist()
        return scores

    def _scored(self, pairs: Sequence[Pair], out: torch.Tensor) -> bool:
        """Fills `out` (pairs,); False where the device's memory does not hold that much at once."""
        try:
            with self._forward.scoring() as score:

                def fill(indices: Sequence[int]) -> None:
                    out[torch.tensor(indices)] = score([pairs[index] for index in indices]).cpu()

                lengths = [len(pair.ids) for pair in pairs]
                if self._forward.takes_lanes:
                    cut = even_batches if self._forward.packs else batches_by_length
                    side_by_side(fill, cut(lengths, self._budget))
                else:
                    for indices in batches_by_length(lengths, self._budget):
                        fill(indices)
        except torch.OutOfMemoryError:
            if self._budget <= LEAST_BUDGET:
                raise
            return False
        return True


class Embedder:
    """A sentence embedder: the mean of a text's last hidden states, normalised, as all-MiniLM-L6-v2 was trained.

    Args:
        files: the model.
        max_length: tokens a text is cut at, at most 256, where that embedder's own training ended.
        device: where to compute.
    """

    def __init__(self, files: BaseFiles, *, max_length: int, device: str = "cpu") -> None:
        from transformers import AutoModel

        options = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True}
        model = AutoModel.from_pretrained(files.folder, dtype=torch.float32, **options)
        self._encoder: Any = model.to(device).eval()
        self._tokenizer = tokenizer_of(files.folder)
        self._max_length = min(max_length, 256)

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str], encoded: Callable[[int], object] = int) -> torch.Tensor:
        """Return (texts, hidden size), each row of length 1.

        Args:
            texts: any number of them.
            encoded: told after each batch, by any thread, of how many texts it was.
        """
        rows = self._tokenizer(list(texts), truncation=True, max_length=self._max_length, verbose=False)["input_ids"]
        out = torch.empty(len(rows), self._encoder.config.hidden_size)
        means_of = means_by(self._encoder)

        def fill(indices: Sequence[int]) -> None:
            means = means_of([Pair(tuple(rows[index]), len(rows[index])) for index in indices])
            out[torch.tensor(indices)] = torch.nn.functional.normalize(means, dim=1).cpu()
            encoded(len(indices))

        lengths, device = [len(row) for row in rows], self._encoder.device
        if device.type == "cpu":
            side_by_side(fill, even_batches(lengths, budget_of(device)))
        else:
            for batch in batches_by_length(lengths, budget_of(device)):
                fill(batch)
        return out


def documents_in(wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of all documents of some lists, each once, in the order of ids."""
    return sorted({doc for docs in wanted.values() for doc in docs})


def similarity(
    embedder: Embedder,
    wanted: Mapping[str, Sequence[str]],
    queries: Texts,
    documents: Texts,
    encoded: Callable[[int], object] = int,
) -> dict[str, dict[str, float]]:
    """Cosine similarity of sentence embeddings: query id -> document id -> score in [-1, 1].

    Args:
        embedder: computes the embeddings; each query and each document is encoded once.
        wanted: query id -> document ids.
        queries: texts of query ids, in order.
        documents: texts of document ids, in order.
        encoded: told after each batch, by any thread, of how many texts it was.
    """
    query_ids = list(wanted)
    doc_ids = documents_in(wanted)
    left = embedder.embeddings(queries(query_ids), encoded)
    right = embedder.embeddings(documents(doc_ids), encoded)
    place = {doc: at for at, doc in enumerate(doc_ids)}
    out: dict[str, dict[str, float]] = {}
    for at, query in enumerate(query_ids):
        docs = wanted[query]
        values = right[torch.tensor([place[doc] for doc in docs], dtype=torch.long)] @ left[at]
        out[query] = dict(zip(docs, values.tolist(), strict=True))
    return out
