"""Find the nearest documents of queries by a bi-encoder: exact search over the whole collection, a block at a time.

Invariant: memory holds the vectors of one block of documents and of all queries, each query's best so far, and all ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from cerank.datasets.dataset import Documents
from cerank.inference.bi_encoders import BiEncoderFiles
from cerank.models.cross_encoder import load_tokenizer
from cerank.models.forward_pass import token_budget
from cerank.tokenization.tokens import batches_by_length

DOCUMENTS_AT_ONCE = 4096
QUERIES_AT_ONCE = 1024  # compared with a block of documents


class BiEncoder:
    """Embeds queries and documents as sentence-transformers would.

    Args:
        files: the model's files and how its vectors are made.
        device: device to compute on, such as "cpu" or "cuda:0".
    """

    def __init__(self, files: BiEncoderFiles, device: str = "cpu") -> None:
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        options = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True}
        model = AutoModel.from_pretrained(files.folder, dtype=torch.float32, **options)
        self._encoder: Any = model.to(device).eval()
        self._tokenizer = load_tokenizer(files.folder)
        self._files, self._device = files, torch.device(device)

    def queries(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (texts, size) of queries."""
        return self._vectors([self._files.query_prefix + text for text in texts])

    def documents(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (texts, size) of documents."""
        return self._vectors([self._files.document_prefix + text for text in texts])

    @torch.inference_mode()
    def _vectors(self, texts: Sequence[str]) -> Tensor:
        length = self._files.max_length
        rows = self._tokenizer(list(texts), truncation=True, max_length=length, verbose=False)["input_ids"]
        out = torch.empty(len(rows), self._encoder.config.hidden_size)
        for batch in batches_by_length([len(row) for row in rows], token_budget(self._device)):
            padded = self._tokenizer.pad({"input_ids": [rows[place] for place in batch]}, return_tensors="pt")
            inputs = {key: padded[key].to(self._device) for key in ("input_ids", "attention_mask")}
            states = self._encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
            is_mean = self._files.pooling == "mean"
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1) if is_mean else states[:, 0]
            if self._files.is_normalized or self._files.similarity == "cosine":
                pooled = torch.nn.functional.normalize(pooled, dim=1)
            out[torch.tensor(batch)] = pooled.cpu()
        return out


def nearest_documents(
    model: BiEncoder,
    queries: Mapping[str, str],
    documents: Documents,
    depth: int,
    advance: Callable[[int], object] = int,
) -> dict[str, dict[str, float]]:
    """Return query -> document -> similarity, for the `depth` nearest documents of each query.

    Args:
        model: makes the vectors.
        queries: query -> text.
        documents: the collection; all of it is embedded.
        depth: documents for each query.
        advance: called with the number of texts that were embedded.
    """
    vectors = model.queries(list(queries.values()))
    advance(len(queries))
    best = torch.full((len(queries), 0), 0.0)
    places = torch.zeros((len(queries), 0), dtype=torch.int64)
    names: list[str] = []
    for block in _blocks(documents):
        of_block = model.documents([text for _, text in block])
        numbers = torch.arange(len(names), len(names) + len(block))
        names += [doc_id for doc_id, _ in block]
        parts = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            scores = torch.cat([best[part], vectors[part] @ of_block.T], dim=1)
            known = torch.cat([places[part], numbers.expand(scores.shape[0], -1)], dim=1)
            top = scores.topk(min(depth, scores.shape[1]), dim=1)
            parts.append((top.values, known.gather(1, top.indices)))
        best, places = (torch.cat(column) for column in zip(*parts, strict=True))
        advance(len(block))
    return {
        query: {names[place]: score for place, score in zip(of_query.tolist(), values.tolist(), strict=True)}
        for query, of_query, values in zip(queries, places, best, strict=True)
    }


def similarities(
    model: BiEncoder, queries: Mapping[str, str], lists: Mapping[str, Sequence[str]], documents: Documents
) -> dict[str, dict[str, float]]:
    """Return query -> document -> similarity, for the given documents of each query."""
    doc_ids = sorted({doc for docs in lists.values() for doc in docs})
    row = {doc: at for at, doc in enumerate(doc_ids)}
    of_queries, of_documents = (
        model.queries([queries[query] for query in lists]),
        model.documents(documents.texts(doc_ids)),
    )
    out: dict[str, dict[str, float]] = {}
    for at, (query, docs) in enumerate(lists.items()):
        values = of_documents[torch.tensor([row[doc] for doc in docs], dtype=torch.long)] @ of_queries[at]
        out[query] = dict(zip(docs, values.tolist(), strict=True))
    return out


def _blocks(documents: Documents) -> Iterator[list[tuple[str, str]]]:
    """Yield the documents in blocks, as (id, text)."""
    rows = iter(documents)
    while block := list(islice(rows, DOCUMENTS_AT_ONCE)):
        yield block
