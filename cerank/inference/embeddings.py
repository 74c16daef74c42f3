"""Embed texts one by one, for the teacher that cerank computes: sentence similarity of query and document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from cerank.inference.rerank import TextLookup
from cerank.kernels.parallel import run_in_threads
from cerank.models.bases import BaseFiles
from cerank.models.cross_encoder import load_tokenizer
from cerank.models.forward_pass import mean_pooler, token_budget
from cerank.tokenization.tokens import Pair, batches_by_length, even_batches


class Embedder:
    """A sentence embedder: the mean of a text's last hidden states, scaled to length 1, as all-MiniLM-L6-v2 has it.

    Args:
        files: files of the embedding model.
        max_length: tokens that a text is cut at; at most 256, where that embedder's own training ended.
        device: device to compute on, such as "cpu" or "cuda:0".
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
            texts: texts to embed, in any number and order.
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
