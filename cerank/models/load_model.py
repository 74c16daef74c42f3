"""Load any re-ranker that cerank reads: encoders, finished cross-encoders, and language models that judge a pair."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.errors import UsageError
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, fingerprint
from cerank.models.cross_encoder import CheckpointConfig, CrossEncoder
from cerank.models.language_model import load_language_model
from cerank.models.model_reading import CHECKPOINT_CONFIG
from cerank.models.prompt_templates import Declaration, declaration_text
from cerank.tokenization.tokens import TokenLimits

_UNKNOWN_LENGTH = 512  # tokens of a pair where a model's files name no limit


def load_model(files: BaseFiles, pooling: str, seed: int) -> CrossEncoder:
    """Return a base of any family as a cross-encoder; a head that its files do not hold is sampled from `seed`.

    Args:
        files: files of the base, as `bases.locate` finds them.
        pooling: "auto" for the base's own, or a recipe's.
        seed: seed of a new head's weights.

    Raises:
        UsageError: the folder holds none that can be read.
    """
    if (pooling if pooling != "auto" else files.pooling) == "answer":
        return load_language_model(files, seed)
    return cross_encoder.load(files, pooling, seed)


def load_reranker(
    folder: Path, name: str = "", declared: Declaration | None = None
) -> tuple[CrossEncoder, TokenLimits, str]:
    """Return a finished re-ranker, the lengths that it reads, and its fingerprint.

    A checkpoint of cerank keeps the lengths that it was trained with. Any other model reads as much as its files allow,
    and is cut as its own library cuts: the end of the longer text, or the end of a language model's prompt.

    Args:
        folder: a model folder, or a checkpoint of cerank.
        name: hub id, if it has one; published language models are known by it.
        declared: what a declaration file says about it.

    Raises:
        MissingError: there is no model.
        UsageError: it has no trained head, so that its scores would be noise.
    """
    sha256 = fingerprint(folder)
    files = BaseFiles(name or str(folder), folder, "classifier", sha256, declaration=declared)
    reading = files.reading()
    files = msgspec.structs.replace(files, pooling=reading.pooling, declaration=reading.declaration, found=reading)
    if reading.head == "fresh":
        hint = "fine-tune it with `cerank run --base`, or take a finished re-ranker"
        what = f"has no trained head ({reading.family}); its scores would be noise"
        raise UsageError(what, where=files.name, hint=hint)
    if (folder / CHECKPOINT_CONFIG).is_file():
        limits = CheckpointConfig.read(folder).limits
    else:
        longest = reading.max_length or _UNKNOWN_LENGTH
        limits = TokenLimits(longest, longest, 0, "document" if reading.pooling == "answer" else "longest_first")
    if reading.declaration is not None:
        sha256 = f"{sha256} {declaration_text(reading.declaration)}"
    return load_model(files, reading.pooling, seed=0), limits, sha256
