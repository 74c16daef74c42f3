"""Load any re-ranker that cerank reads: encoders, finished cross-encoders, and language models that judge a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cerank.errors import UsageError
from cerank.models import adapters, cross_encoder
from cerank.models.bases import BaseFiles, fingerprint, locate
from cerank.models.cross_encoder import CheckpointConfig, CrossEncoder, load_tokenizer
from cerank.models.foreign.xpm_checkpoint import model_part
from cerank.models.language_model import answer_ids, load_language_model
from cerank.models.lora.adapter_training import continue_adapter
from cerank.models.lora.quantized_base import quantize_base
from cerank.models.model_reading import CHECKPOINT_CONFIG, ModelReading
from cerank.models.preflight import check_tokenizer
from cerank.models.prompt_templates import Declaration, declaration_text
from cerank.models.prompt_tokens import PromptTokenizer
from cerank.recipes.schema import Stage
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.tokenization.tokens import PairTokenizer, TokenLimits

_UNKNOWN_LENGTH = 512  # tokens of a pair where a model's files name no limit


def load_model(
    files: BaseFiles,
    pooling: str,
    seed: int,
    *,
    merges: bool = True,
    spec: AdapterSpec | None = None,
    precision: str = "fp32",
) -> CrossEncoder:
    """Return a base of any family as a cross-encoder; a head that its files do not hold is sampled from `seed`.

    Args:
        files: files of the base, as `bases.locate` finds them.
        pooling: "auto" for the base's own, or a recipe's.
        seed: seed of a new head's weights.
        merges: whether an adapter is merged into its base; else it stays apart, to be trained on.
        spec: adapter of the stage that is to train the model, which may want its base in 8 or 4 bits.
        precision: precision of that stage.

    Raises:
        UsageError: the folder holds none that can be read.
    """
    chosen = pooling if pooling != "auto" else files.pooling
    model = load_language_model(files, seed) if chosen == "answer" else cross_encoder.load(files, pooling, seed)
    if files.adapter is not None and merges:
        model.encoder = adapters.merge(model.encoder, files.adapter)
    if spec is not None:
        quantize_base(model, spec, precision, files.name)
    if files.adapter is not None and not merges:
        continue_adapter(model, files.adapter)
    return model


def check_prompt_limits(files: BaseFiles, stage: Stage, where: str) -> None:
    """Check that a stage's lengths fit a language model's prompt, and that its answers are tokens.

    Raises:
        UsageError: they do not; `where` names the key of the stage.
    """
    declared = files.reading().declaration
    if declared is None:
        return
    tokenizer = load_tokenizer(files.folder)
    answer_ids(tokenizer, declared, files.declared_in)
    try:
        PromptTokenizer(tokenizer, TokenLimits.of_stage(stage), declared.template())
    except UsageError as error:
        raise UsageError(error.what, where=f"{where}.{error.where}", hint=error.hint) from None


def tokens_of(files: BaseFiles, limits: TokenLimits) -> PairTokenizer:
    """Return what turns the texts of a pair into a model's input, without loading its weights."""
    reading, tokenizer = files.reading(), load_tokenizer(files.folder)
    if reading.declaration is not None:
        return PromptTokenizer(tokenizer, limits, reading.declaration.template())
    return PairTokenizer(tokenizer, limits, reading.query_prompt)


def tokens_of_reranker(files: BaseFiles) -> PairTokenizer:
    """Return what turns the texts of a pair into a finished re-ranker's input, with the lengths that it reads."""
    return tokens_of(files, _limits_of(files.folder, files.reading()))


def _limits_of(folder: Path, reading: ModelReading) -> TokenLimits:
    """Return the lengths that a finished re-ranker reads: those it was trained with, or all that its files allow."""
    if (folder / CHECKPOINT_CONFIG).is_file():
        return CheckpointConfig.read(folder).limits
    longest = reading.max_length or _UNKNOWN_LENGTH
    query, document = reading.text_lengths
    cut = "document" if reading.pooling == "answer" else reading.cuts
    return TokenLimits(longest, min(query or longest, longest), document, cut)


class FinishedReranker(NamedTuple):
    """A re-ranker that is ready to score."""

    model: CrossEncoder
    tokenizer: Any
    limits: TokenLimits  # lengths that it reads
    sha256: str  # fingerprint of all that its scores depend on, but for the lengths


def load_reranker(folder: Path, name: str = "", declared: Declaration | None = None) -> FinishedReranker:
    """Return a finished re-ranker with what it needs to score.

    A checkpoint of cerank keeps the lengths that it was trained with. Any other model reads as much as its files allow,
    and is cut as its own library cuts: the end of the longer text, or the end of a language model's prompt.

    Args:
        folder: a model folder, or a checkpoint of cerank.
        name: hub id, if it has one; published language models are known by it.
        declared: what a declaration file says about it.

    Raises:
        MissingError: there is no model.
        UsageError: it has no trained head, or no tokenizer that fits it, so that its scores would be noise.
    """
    folder = model_part(folder)
    if adapters.is_adapter(folder):
        files = locate(str(folder))
    else:
        files = BaseFiles(name or str(folder), folder, "classifier", fingerprint(folder), declaration=declared)
    reading, sha256 = files.reading(), files.sha256
    files = msgspec.structs.replace(files, pooling=reading.pooling, declaration=reading.declaration, found=reading)
    if reading.head == "fresh":
        hint = "fine-tune it with `cerank run --base`, or take a finished re-ranker"
        what = f"the model has no trained head ({reading.family}); its scores would be noise"
        raise UsageError(what, where=files.name, hint=hint, code="head-untrained")
    check_tokenizer(files.folder)
    limits = _limits_of(folder, reading)
    if reading.declaration is not None:
        sha256 = f"{sha256} {declaration_text(reading.declaration)}"
    return FinishedReranker(load_model(files, reading.pooling, seed=0), load_tokenizer(files.folder), limits, sha256)
