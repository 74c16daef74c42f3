"""Scoring that asks the kept scores first, and keeps what it computes.

Invariant: a score is the same, bit for bit, whether it was kept or computed: candidates are cut into blocks by rank,
a block is scored in batches of its own, and only a whole block is ever taken from the kept ones. So a deeper
re-ranking, or one with a further first stage behind the ones before, computes only the blocks that are new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

from cerank.files.source_hash import COMPUTING_PACKAGES, code_sha256
from cerank.inference.rerank import Texts
from cerank.inference.score_files import KeptScores
from cerank.kernels.determinism import device_name

BLOCK = 100  # candidates of a query scored together: the depth that most first stages are re-ranked to


class Chunks(Protocol):
    """What scores a chunk of queries: a `Scorer`."""

    def chunk(
        self, wanted: Mapping[str, Sequence[str]], queries: Texts, documents: Texts
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score."""


def scored(
    scorer: Chunks, wanted: Mapping[str, Sequence[str]], queries: Texts, documents: Texts, kept: KeptScores | None
) -> dict[str, dict[str, float]]:
    """Query id -> document id -> score of a chunk of queries; as `Scorer.chunk`, block by block.

    Args:
        scorer: computes what is not kept.
        wanted: query id -> document ids, best first.
        queries: texts of query ids, in order.
        documents: texts of document ids, in order.
        kept: where scores are looked for and kept; None computes all.

    Raises:
        RunFailedError: as `Scorer.chunk`.
    """
    out: dict[str, dict[str, float]] = {query: {} for query in wanted}
    for start in range(0, max(map(len, wanted.values()), default=0), BLOCK):
        block = {query: docs[start : start + BLOCK] for query, docs in wanted.items() if len(docs) > start}
        texts = list(queries(list(block))) if kept else []
        found = kept.find(block, texts) if kept else None
        if found is None:
            found = scorer.chunk(block, queries, documents)
            if kept:
                kept.keep(block, texts, found)
        for query, row in found.items():
            out[query].update(row)
    return out


def identity(model: str, documents: str, *, device: str, threads: int, precision: str) -> tuple[str, ...]:
    """All that a score's bits depend on beside its chunk.

    Args:
        model: the checkpoint's fingerprint, tokenizer and lengths included.
        documents: the fingerprint of the collection that document ids belong to.
        device: where it is computed; its name counts, for another processor adds up in another order.
        threads: of the CPU.
        precision: "fp32" or "bf16".
    """
    packages = [f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers")]
    return (model, documents, device_name(device), str(threads), precision, *packages, code_sha256(*COMPUTING_PACKAGES))
