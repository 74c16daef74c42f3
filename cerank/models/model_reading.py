"""Recognize what a model folder holds, from its settings and the names of its weights, without loading any of it.

A folder is an encoder that gets a fresh head, a finished classifier, a chain of sentence-transformers' modules, a
sentence embedder, or a language model that answers a question about the pair. What could be read in two ways is refused
with what to declare.

Invariant: a finished re-ranker is never read as one without a head, nor the other way round.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from cerank.errors import CerankError, UsageError
from cerank.files.safe_open import open_file
from cerank.models import model_folders, preflight
from cerank.models.foreign import lightning_checkpoint, xpm_checkpoint
from cerank.models.foreign.xpm_checkpoint import XpmLengths
from cerank.models.prompt_templates import (
    DECLARATION,
    PUBLISHED,
    Declaration,
    published_as,
    read_declaration,
    with_linear_head,
)
from cerank.text.safe_text import shown

Pooling = Literal["product", "mean", "cls", "classifier", "answer"]
Head = Literal["fresh", "trained"]

CHECKPOINT_CONFIG = "cerank.json"  # pooling and lengths of a checkpoint of cerank
HEAD_WEIGHTS = Path("2_Dense") / "model.safetensors"  # the linear head, where sentence-transformers looks for it, too

_DECODERS = {
    "bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "gpt2",
    "gpt_neo", "gpt_neox", "granite", "gptj", "llama", "llama4_text", "mistral", "mixtral", "mpt", "olmo", "olmo2",
    "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "smollm3", "stablelm", "starcoder2",
}  # fmt: skip
_PLAIN_LOGITS = {"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"}  # whose logits are states times the table
_ENCODER_DECODERS = {"bart", "mbart", "mt5", "pegasus", "t5", "t5gemma", "umt5"}
HEAD_KEYS = re.compile(r"^(?:classifier(?:\.out_proj|\.dense)?|score|logits_proj)\.weight$")
_LABEL = re.compile(r"^LABEL_\d+$")
_RELEVANT = {"relevant", "true", "yes", "positive_passage", "1"}
_NOT_RELEVANT = {"irrelevant", "not_relevant", "non_relevant", "not relevant", "non-relevant", "false", "no", "0"}
_POOLING_FOLDER = "1_Pooling"
_UNLIMITED = 1 << 20  # a tokenizer's length beyond this stands for none


class ModelReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a model folder holds, and how a score comes from it."""

    family: str  # in words
    pooling: Pooling
    head: Head
    model_type: str = ""
    label: int | None = None  # index of the label that means "relevant"; None if there is one score
    query_prompt: str = ""  # written before each query
    activation: str = ""  # that sentence-transformers applies to the logit; it does not change the order
    max_length: int = 0  # tokens of a pair that the model reads at most; 0 where its files do not say
    parameters: int = 0  # number of weights; 0 where the names of weights could not be read
    declaration: Declaration | None = None  # prompt template and answers of a language model; None for others
    text_lengths: tuple[int, int] = (0, 0)  # tokens that a query and a document keep by themselves; 0 for no limit
    cuts: Literal["longest_first", "document"] = "longest_first"  # what a pair that is too long loses


def read_model(
    folder: Path, name: str = "", declared: Declaration | None = None, pooling: str = "auto"
) -> ModelReading:
    """Return what the folder holds.

    Args:
        folder: a model folder, or the folder of a hub snapshot.
        name: hub id or path by which it was asked for; published language models are known by it.
        declared: what a declaration file says about it; the folder's own is read if there is none.
        pooling: "auto" for what the folder says; "product" and "mean" take its encoder alone, with a fresh head, and
            "classifier" reads no modules of sentence-transformers.

    Raises:
        UsageError: it holds no re-ranker and no encoder, or could be read in two ways.
    """
    config = model_folders.json_object(folder / "config.json")
    weights = weight_shapes(folder)
    length = longest_input(folder, config)
    if declared is None and (folder / DECLARATION).is_file():
        declared = read_declaration(folder / DECLARATION)
    request = _ReadingRequest(name, declared, pooling)
    reading = _lightning(folder, config, weights, pooling) or _recognized(folder, config, weights, request)
    parameters = sum(_product(shape) for shape in weights.values())
    reading = msgspec.structs.replace(reading, max_length=reading.max_length or length, parameters=parameters)
    lengths = xpm_checkpoint.read_lengths(folder) if reading.head == "trained" else None
    return reading if lengths is None else _as_xpmir_cuts(reading, lengths)


def _as_xpmir_cuts(reading: ModelReading, lengths: XpmLengths) -> ModelReading:
    """Return the reading of a model with the lengths and the prompt that xpmir kept beside it."""
    limits = [length for length in (reading.max_length, lengths.pair) if length]
    return msgspec.structs.replace(
        reading,
        family=f"checkpoint of xpmir: {reading.family}",
        max_length=min(limits, default=0),
        text_lengths=(lengths.query, lengths.document),
        query_prompt=lengths.query_prompt or reading.query_prompt,
        cuts="document" if lengths.query else reading.cuts,
    )


def _lightning(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]], pooling: str
) -> ModelReading | None:
    """Return the reading of a checkpoint of lightning-ir; None for others, and where its encoder alone is asked for."""
    if not lightning_checkpoint.is_lightning(config):
        return None
    settings = lightning_checkpoint.read_settings(folder, config, weights)
    if pooling not in {"auto", settings.pooling}:
        return None
    return ModelReading(
        family=f"checkpoint of lightning-ir ({_architecture(config)})",
        pooling=settings.pooling,
        head="trained",
        model_type=settings.backbone,
        text_lengths=(settings.query_length, settings.document_length),
    )


class _ReadingRequest(NamedTuple):
    """What a recipe or the user says about a model folder, before its files are read."""

    name: str
    declared: Declaration | None
    pooling: str


def _recognized(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]], request: _ReadingRequest
) -> ModelReading:
    name, declared, pooling = request
    model_type = str(config.get("model_type", ""))
    architecture = _architecture(config)
    if (folder / CHECKPOINT_CONFIG).is_file():
        return _checkpoint(folder, model_type, declared)
    is_decoder = architecture.endswith("ForCausalLM") or model_type in _DECODERS or config.get("is_decoder") is True
    if declared is not None or is_decoder or model_type in _ENCODER_DECODERS:
        if pooling != "auto":
            what = f'pooling = "{pooling}" is for encoders; this is a language model'
            raise UsageError(what, where="pooling", hint='set pooling = "auto"', code="option-for-encoders")
        return _language_model(folder, name, config, declared)
    modules = _module_types(folder) if pooling != "classifier" else ()
    if pooling in {"product", "mean"} and not (modules and _is_cross_encoder(folder, modules, pooling)):
        described = f"encoder ({architecture or model_type}) with a fresh head, pooling {pooling}"
        return ModelReading(family=described, pooling=_pooling(pooling), head="fresh", model_type=model_type)
    if modules and modules != ("Transformer",):
        return _module_chain(folder, modules, model_type)
    if architecture.endswith("ForSequenceClassification"):
        return _classifier(folder, config, weights)
    if any(HEAD_KEYS.match(key) for key in weights) and not architecture.endswith(_OTHER_HEADS):
        what = f"the model's weights hold a classifier's head; config.json says {architecture or 'no architecture'}"
        hint = 'a finished re-ranker says "architectures": ["...ForSequenceClassification"]; correct the file'
        raise UsageError(what, where=str(folder / "config.json"), hint=hint, code="head-undeclared")
    described = f"encoder ({architecture or model_type or 'of unknown type'}) with a fresh head"
    return ModelReading(family=described, pooling="classifier", head="fresh", model_type=model_type)


def _pooling(text: str) -> Pooling:
    pooling: Pooling = msgspec.convert(text, Pooling)
    return pooling


_OTHER_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")


def _checkpoint(folder: Path, model_type: str, declared: Declaration | None) -> ModelReading:
    mark = folder / CHECKPOINT_CONFIG
    config = model_folders.json_object(folder / "config.json")
    values = model_folders.json_object(mark)
    try:
        pooling = msgspec.convert(values.get("pooling"), Pooling)
    except msgspec.ValidationError as error:
        raise UsageError(f"the file names no pooling: {error}", where=str(mark)) from error
    length = values.get("max_length")
    return ModelReading(
        family="checkpoint of cerank",
        pooling=pooling,
        head="trained",
        model_type=model_type,
        label=_relevant_label(folder, config) if _labels(config, weight_shapes(folder)) == 2 else None,
        max_length=length if isinstance(length, int) else 0,
        query_prompt=str(values.get("query_prompt", "")),
        declaration=declared,
    )


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _classifier(folder: Path, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> ModelReading:
    """Return the reading of a finished classifier of one or two labels."""
    where = str(folder / "config.json")
    if weights and not any(HEAD_KEYS.match(key) for key in weights):
        what = f"the model's config.json says {_architecture(config)}, and its weights hold no such head"
        raise UsageError(
            what, where=where, hint="take the whole model; or name the encoder in architectures", code="head-missing"
        )
    labels = _labels(config, weights)
    if labels not in {1, 2}:
        names = ", ".join(shown(name, 40) for name in _label_names(config)[:5]) or f"{labels} labels"
        what = f"a classifier of {labels} labels ({names}) does not say which of them means relevant"
        hint = "take a re-ranker of one or two labels, or its encoder without the head"
        raise UsageError(what, where=where, hint=hint, code="relevant-label-unknown")
    label = _relevant_label(folder, config) if labels == 2 else None
    return ModelReading(
        family="finished classifier of one label" if label is None else "finished classifier of two labels",
        pooling="classifier",
        head="trained",
        model_type=str(config.get("model_type", "")),
        label=label,
        query_prompt=_query_prompt(folder),
        activation=_activation(folder, config) if label is None else "",
    )


def _labels(config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of labels: the head's own, else what the config says, which leaves out two."""
    heads = [shape for key, shape in weights.items() if re.match(r"^(?:classifier(?:\.out_proj)?|score)\.weight$", key)]
    if heads and len(heads[0]) == 2:
        return heads[0][0]
    names = config.get("id2label")
    number = config.get("num_labels", 2)
    return len(names) if isinstance(names, dict) and names else number if isinstance(number, int) else 2


def _label_names(config: Mapping[str, Any]) -> list[str]:
    names = config.get("id2label")
    if not isinstance(names, dict):
        return []
    return [str(names[key]) for key in sorted(names, key=lambda key: (len(str(key)), str(key)))]


def _relevant_label(folder: Path, config: Mapping[str, Any]) -> int:
    """Return which of two labels means relevant; without names of their own it is the second, as in monoBERT."""
    names = [name.lower() for name in _label_names(config)]
    if not names or all(_LABEL.match(name.upper()) for name in names):
        return 1
    for number, name in enumerate(names[:2]):
        if name in _RELEVANT and names[1 - number] in _NOT_RELEVANT:
            return number
    what = f"the labels {shown(names[0], 40)} and {shown(names[1], 40)} do not say which of them means relevant"
    hint = "a re-ranker; not a model of entailment or sentiment. Name the labels irrelevant and relevant if it is one"
    raise UsageError(what, where=str(folder / "config.json"), hint=f"take {hint}", code="relevant-label-unknown")


def _activation(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the last part of the activation's name that sentence-transformers would apply; "" for none."""
    own = config.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, dict) else config.get("sbert_ce_default_activation_function")
    path = folder / "config_sentence_transformers.json"
    if path.is_file():
        named = model_folders.json_object(path).get("activation_fn", named)
    name = str(named or "").rpartition(".")[2]
    return "" if name == "Identity" else name


def _query_prompt(folder: Path) -> str:
    """Return what sentence-transformers writes before each query of a cross-encoder; "" for nothing."""
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return ""
    values = model_folders.json_object(path)
    prompts, chosen = values.get("prompts"), values.get("default_prompt_name")
    prompt = prompts.get(chosen) if isinstance(prompts, dict) and isinstance(chosen, str) else None
    return prompt if isinstance(prompt, str) else ""


# chains of modules of sentence-transformers


def _module_types(folder: Path) -> tuple[str, ...]:
    """Return the classes of the modules of sentence-transformers, by their own names; () without modules.json."""
    if not (folder / "modules.json").is_file() and not (folder / _POOLING_FOLDER / "config.json").is_file():
        return ()
    return tuple(module_type.rpartition(".")[2] for module_type, _ in module_list(folder))


def module_list(folder: Path) -> list[tuple[str, Path]]:
    """Return (class, folder) of each module in modules.json, in order.

    Raises:
        UsageError: the file is no such list, or names a folder outside the model's own.
    """
    path = folder / "modules.json"
    if not path.is_file():  # folders by their usual names
        parts = [("Pooling", folder / _POOLING_FOLDER), ("Dense", folder / HEAD_WEIGHTS.parent)]
        return [("Transformer", folder), *(part for part in parts if part[1].is_dir())]
    try:
        with open_file(path) as file:
            rows = json.loads(file.read(1 << 20))
        modules = [(str(row["type"]), str(row["path"])) for row in sorted(rows, key=lambda row: row["idx"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError("the file is no list of modules", where=str(path), code="invalid-modules") from error
    for _, part in modules:
        if part and not re.fullmatch(r"\w+", part):
            raise UsageError(
                f"the file names a folder outside the model: {shown(part, 80)}",
                where=str(path),
                code="path-out-of-folder",
            )
    return [(kind, folder / part if part else folder) for kind, part in modules]


def pooling_mode(folder: Path) -> str:
    """Return the pooling mode in a module folder of sentence-transformers: "mean", "cls" or another."""
    values = model_folders.json_object(folder / "config.json")
    named = values.get("pooling_mode")
    if isinstance(named, str):
        return named
    start = "pooling_mode_"
    modes = [key.removeprefix(start) for key, value in values.items() if key.startswith(start) and value is True]
    if len(modes) != 1:
        return " and ".join(modes) or "mean"
    return {"mean_tokens": "mean", "cls_token": "cls"}.get(modes[0], modes[0])


def _module_chain(folder: Path, kinds: tuple[str, ...], model_type: str) -> ModelReading:
    """Return the reading of Transformer, Pooling and what follows: a cross-encoder or a sentence embedder."""
    where = str(folder / "modules.json")
    chain = " > ".join(shown(kind, 40) for kind in kinds)
    if kinds == ("Transformer", "LogitScore"):
        return _language_model(folder, "", model_folders.json_object(folder / "config.json"), None)
    if kinds[:2] != ("Transformer", "Pooling"):
        raise UsageError(
            f"the model's modules ({chain}) are no encoder with pooling", where=where, hint="take another model"
        )
    pooling = pooling_mode(module_list(folder)[1][1])
    if pooling not in {"mean", "cls"}:
        raise UsageError(
            f"the model's pooling is {shown(pooling, 60)}; only mean and cls are supported",
            where=where,
            code="pooling-not-supported",
        )
    if _is_cross_encoder(folder, kinds):
        foreign = sorted(set(kinds[2:]) - {"Dense", "LayerNorm", "Dropout"})
        if foreign:
            raise UsageError(
                f"the model's head holds modules that cerank does not know: {', '.join(foreign)}", where=where
            )
        return ModelReading(
            family=f"sentence-transformers cross-encoder ({chain})",
            pooling="mean" if pooling == "mean" else "cls",
            head="trained",
            model_type=model_type,
            query_prompt=_query_prompt(folder),
            activation=_activation(folder, {}),
        )
    if pooling == "cls":
        what = "a sentence embedder that reads the first token's state has no head for pairs"
        hint = 'set pooling = "classifier" or "mean" for a fresh head over it'
        raise UsageError(what, where=where, hint=hint, code="head-missing")
    return ModelReading(
        family=f"sentence embedder ({chain}) with a fresh head", pooling="product", head="fresh", model_type=model_type
    )


def _is_cross_encoder(folder: Path, kinds: tuple[str, ...], pooling: str = "") -> bool:
    """Return whether a chain of modules ends in a score: in a Dense of one output; and has that pooling, if given."""
    if kinds[-1] != "Dense" or (pooling and pooling_mode(module_list(folder)[1][1]) != pooling):
        return False
    path = module_list(folder)[-1][1] / "config.json"
    if not path.is_file():
        return True
    values = model_folders.json_object(path)
    return values.get("module_output_name") == "scores" or values.get("out_features") == 1


# language models


def _language_model(folder: Path, name: str, config: Mapping[str, Any], declared: Declaration | None) -> ModelReading:
    """Return the reading of a language model that judges a pair: declared, or published under a known name."""
    model_type, architecture = str(config.get("model_type", "")), _architecture(config)
    has_linear_head = architecture.endswith("ForSequenceClassification")
    names = known_names(folder, name, config)
    if any("duot5" in each.lower() for each in names):
        what = "duoT5 compares two documents at once, and gives no score of one"
        raise UsageError(what, where=str(folder), hint="take monoT5", code="not-pointwise")
    published = published_as(names, model_type)
    if declared is None and published:
        declared = PUBLISHED[published].declaration
        declared = with_linear_head(declared) if has_linear_head else declared
    if declared is None:
        kind = "an encoder-decoder" if model_type in _ENCODER_DECODERS else "a causal language model"
        what = f"{kind} ({architecture or model_type}), and nothing says how it judges a pair"
        hint = f"declare its template and answers in {DECLARATION}; see `cerank guide models`"
        raise UsageError(what, where=str(folder), hint=hint, code="prompt-unknown")
    _check_kind(folder, declared, model_type, has_linear_head=has_linear_head)
    return ModelReading(
        family=f"{published or 'declared'}, {declared.kind.replace('-', ' ')}",
        pooling="answer",
        head="trained",
        model_type=model_type,
        max_length=declared.max_length,
        declaration=declared,
    )


def _check_kind(folder: Path, declared: Declaration, model_type: str, *, has_linear_head: bool) -> None:
    """Check that the model is of the declared kind.

    Raises:
        UsageError: it is not.
    """
    is_seq2seq = model_type in _ENCODER_DECODERS
    right = {
        "causal": not is_seq2seq and not has_linear_head,
        "causal-classifier": not is_seq2seq and has_linear_head,
        "encoder-decoder": is_seq2seq,
    }
    if not right[declared.kind]:
        is_what = "an encoder-decoder" if is_seq2seq else f"causal with{'' if has_linear_head else 'out'} a linear head"
        raise UsageError(
            f'the model is declared as "{declared.kind}", and is {is_what}', where=str(folder), code="kind-mismatch"
        )
    if declared.kind == "causal" and model_type not in _PLAIN_LOGITS:
        what = f"causal models of type {shown(model_type, 40)} are not supported"
        hint = f"supported are {', '.join(sorted(_PLAIN_LOGITS))}"
        raise UsageError(what, where=str(folder), hint=hint, code="model-type-not-supported")
    if is_seq2seq and model_type != "t5":
        raise UsageError(f"encoder-decoders of type {shown(model_type, 40)} are not supported", where=str(folder))


def known_names(folder: Path, name: str, config: Mapping[str, Any]) -> list[str]:
    """Return the names that the model goes by: as asked for, its folder's, its hub id in the hub's cache."""
    names = [name, folder.name, str(config.get("_name_or_path", ""))]
    if folder.parent.name == "snapshots":
        names.append(folder.parent.parent.name.removeprefix("models--").replace("--", "/"))
    return [each for each in names if each]


# lengths and weights


def longest_input(folder: Path, config: Mapping[str, Any]) -> int:
    """Return the tokens that the model reads at most, as tokenizer, modules and positions say; 0 if none does."""
    limits = []
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        limits.append(model_folders.json_object(tokenizer).get("model_max_length"))
    sentences = folder / "sentence_bert_config.json"
    if sentences.is_file():
        limits.append(model_folders.json_object(sentences).get("max_seq_length"))
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and str(config.get("model_type")) in {"roberta", "xlm-roberta", "camembert"}:
        positions -= 2  # they count positions from padding's on
    limits.append(positions)
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _UNLIMITED]
    return min(known, default=0)


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the weights in a folder's safetensors files; {} where they cannot be read."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            shapes |= preflight.weight_shapes(path)
    except CerankError:  # told by `preflight`, which checks every base
        return {}
    return shapes


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
