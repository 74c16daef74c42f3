"""Check what a model's files say before anything loads them: every fault that would otherwise end a run much later.

Invariant: only the headers of weights, and small JSON files, are read; torch and transformers are not imported.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import UsageError, os_error
from cerank.files.safe_open import open_file, read_file
from cerank.models.model_folders import json_object
from cerank.text.safe_text import counted, shown

TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model"),
    "vocab.json",
)
_LARGEST_TOKENIZER = 1 << 26  # bytes of a tokenizer.json; the largest known has 34 MB
_LARGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows
_LFS = b"version https://git-lfs"
# Families whose table of positions ends: a longer text is an index out of range. Others count positions relatively.
_ABSOLUTE = {"bert", "electra", "distilbert", "albert", "ernie", "mobilebert", "squeezebert", "nezha", "layoutlm"}
_FROM_PADDING = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "roberta-prelayernorm"}
_FEWEST = 0.5  # share of the embeddings that a tokenizer fills at least; 1,000 unused ones are usual
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:word_embeddings|embed_tokens|tok_embeddings|wte)\.weight$")
_HEADS = re.compile(r"(?:^|\.)(?:classifier|score|classifier\.out_proj|classifier\.dense2)\.weight$")


class ModelSizes(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes in a model folder: entries of its tokenizer, rows of its embeddings, scores of its head."""

    family: str  # config.json's model_type
    embeddings: int  # rows of the table of token embeddings; 0 where it is not found
    tokens: int  # entries of the tokenizer; 0 where only its own library can tell
    token_types: int  # kinds of token types; 0 where the family has none
    longest: int  # tokens of the longest input; 0 where nothing limits it
    head: int  # scores that its head gives; 0 without a head
    weights: int  # bytes


def read_sizes(folder: Path) -> ModelSizes:
    """Return what the folder's files say.

    Raises:
        UsageError: weights that are cut or only a pointer to them, or no files of a tokenizer.
    """
    config = json_object(folder / "config.json")
    shapes: dict[str, tuple[int, ...]] = {}
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        shapes |= weight_shapes(path)
    family = str(config.get("backbone_model_type") or config.get("model_type", ""))  # lightning-ir names both
    embeddings = [shape[0] for name, shape in shapes.items() if _EMBEDDINGS.search(name) and len(shape) == 2]
    heads = [shape[0] for name, shape in shapes.items() if _HEADS.search(name) and len(shape) == 2]
    architectures = " ".join(map(str, config.get("architectures") or ()))
    return ModelSizes(
        family=family,
        embeddings=embeddings[0] if embeddings else _whole_number(config, "vocab_size"),
        tokens=_tokenizer_size(folder),
        token_types=_whole_number(config, "type_vocab_size"),
        longest=_longest(family, config),
        head=heads[-1] if heads and "SequenceClassification" in architectures else 0,
        weights=sum(path.stat().st_size for path in weights),
    )


def check_base(
    folder: Path, lengths: Mapping[str, int], *, needs_one_score: bool = True, is_language_model: bool = False
) -> ModelSizes:
    """Return the facts of a base model that can be trained and scored as a recipe says.

    Args:
        folder: folder of the base model.
        lengths: where a length is set, such as "stages.distill.max_length" -> that length in tokens.
        needs_one_score: whether the model's own head is used, which must then give one score.
        is_language_model: whether the model is scored by its answer to a prompt, as an encoder-decoder must be.

    Raises:
        UsageError: weights that cannot be read, no tokenizer or one that does not fit the embeddings, an
            encoder-decoder, token types that the model lacks, a head with several scores, or a length beyond its
            positions.
    """
    config = json_object(folder / "config.json")
    if config.get("is_encoder_decoder") and not is_language_model:
        what = f"the model is an encoder-decoder ({shown(config.get('model_type', ''), 40)})"
        raise UsageError(
            f"{what}, which is not supported",
            where=str(folder),
            hint="take an encoder, such as BERT",
            code="model-type-not-supported",
        )
    facts = check_tokenizer(folder)
    if facts.token_types == 1 and _gives_second_token_type(folder):
        what = "the model's tokenizer marks the document as token type 1, and its model has one token type only"
        raise UsageError(
            what, where=str(folder), hint="take the tokenizer that belongs to the model", code="token-types-differ"
        )
    if needs_one_score and facts.head > 1:
        what = f"the model's head gives {facts.head} scores, not one"
        hint = "a re-ranker has one score; take the encoder it was made from, or a model with num_labels = 1"
        raise UsageError(what, where=str(folder), hint=hint, code="output-count")
    for where, length in lengths.items():
        if facts.longest and length > facts.longest:
            what = f"{where} = {length}, but the model reads at most {counted(facts.longest, 'token')}"
            raise UsageError(
                what, where=str(folder), hint=f"set it to {facts.longest} or less", code="length-too-large"
            )
    return facts


def check_tokenizer(folder: Path) -> ModelSizes:
    """Return the facts of a model whose tokenizer is there and fits its embeddings.

    transformers loads a tokenizer without a vocabulary as one that knows no word.

    Raises:
        UsageError: no tokenizer, or one that does not fit, or weights that cannot be read.
    """
    facts = read_sizes(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        hint = "copy the tokenizer's files from the model it was trained from (tokenizer.json or vocab.txt)"
        raise UsageError("the folder holds no tokenizer", where=str(folder), hint=hint, code="tokenizer-missing")
    _check_sizes(facts, folder)
    return facts


def _check_sizes(facts: ModelSizes, folder: Path) -> None:
    if not (facts.tokens and facts.embeddings):
        return
    both = f"its tokenizer has {facts.tokens:,} entries and its table of embeddings {facts.embeddings:,} rows"
    if facts.tokens > facts.embeddings:
        hint = "tokens were added without resize_token_embeddings, or the tokenizer belongs to another model"
        raise UsageError(both, where=str(folder), hint=hint, code="vocabulary-mismatch")
    if facts.tokens < _FEWEST * facts.embeddings:
        raise UsageError(
            both,
            where=str(folder),
            hint="the tokenizer belongs to another model, or a file of it is lost",
            code="vocabulary-mismatch",
        )


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, after checking that all of the file is there.

    Raises:
        UsageError: a Git LFS pointer, a damaged header, or a file that ends early.
    """
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            start = file.read(8)
            if (start + file.peek(32)[:32]).startswith(_LFS):
                what = "the file is a Git LFS pointer, not the weights themselves"
                raise UsageError(
                    what, where=str(path), hint="run `git lfs pull` where the model was cloned", code="wrong-file-kind"
                )
            length = int.from_bytes(start, "little")
            data = file.read(length) if len(start) == 8 and length <= _LARGEST_HEADER else b""
        header = json.loads(data)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        shapes = {name: tuple(int(number) for number in entry["shape"]) for name, entry in tensors.items()}
    except OSError as error:
        raise os_error(error, path) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError) as error:
        raise UsageError(
            "the file has no readable header, so the weights are damaged or cut",
            where=str(path),
            code="weights-damaged",
        ) from error
    if size != 8 + length + end:
        what = f"the file has {size:,} bytes and should have {8 + length + end:,}: the weights are cut or damaged"
        raise UsageError(what, where=str(path), hint="fetch the file again", code="weights-damaged")
    return shapes


def _whole_number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _longest(family: str, config: Mapping[str, Any]) -> int:
    positions = _whole_number(config, "max_position_embeddings")
    if family in _FROM_PADDING:  # positions are counted from behind the padding's id
        padding = config.get("pad_token_id", 1)
        return max(0, positions - 1 - (padding if isinstance(padding, int) else 1))
    return positions if family in _ABSOLUTE else 0


def _tokenizer_size(folder: Path) -> int:
    """Return the largest token id plus one; 0 where only the tokenizer's own library can tell."""
    path = folder / "tokenizer.json"
    if path.is_file():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            values = msgspec.json.decode(read_file(path, _LARGEST_TOKENIZER))
            vocabulary = values["model"]["vocab"]
            added = max((int(entry["id"]) for entry in values.get("added_tokens") or ()), default=-1)
            largest = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary) - 1
            return max(int(largest), added) + 1
        return 0
    path = folder / "vocab.txt"
    if path.is_file():
        with contextlib.suppress(OSError):
            return len(read_file(path, _LARGEST_TOKENIZER).splitlines())
    return 0


def _gives_second_token_type(folder: Path) -> bool:
    """Return whether the tokenizer marks the second text of a pair as token type 1."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return (folder / "vocab.txt").is_file()  # BERT's
    try:
        processor = msgspec.json.decode(read_file(path, _LARGEST_TOKENIZER)).get("post_processor") or {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    steps = processor.get("processors") or [processor]
    return any(
        step.get("type") == "BertProcessing"
        or any(part.get("type_id") == 1 for item in step.get("pair") or () for part in item.values())
        for step in steps
    )
