"""Load and save the cross-encoder, a pretrained encoder with pooling and a linear head; runs no foreign code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from cerank.core.seeds import derive
from cerank.errors import MissingError, UsageError
from cerank.files.safe_open import read_file
from cerank.kernels import dropout
from cerank.models import adapters, model_folders, module_head
from cerank.models.adapters import Adapter
from cerank.models.bases import BaseFiles
from cerank.models.foreign import lightning_checkpoint
from cerank.models.model_reading import CHECKPOINT_CONFIG, HEAD_WEIGHTS, ModelReading, Pooling
from cerank.text.safe_text import counted, shown
from cerank.tokenization.tokens import PaddedBatch, PairTokenizer, TokenLimits


class Lockstep(Protocol):
    """What processes have to agree on that compute one model together: each pass of one is a pass of all."""

    @property
    def is_shared(self) -> bool:
        """Return whether there are several processes."""

    def goes_on(self, *, has_work: bool) -> bool:
        """Return whether any of the processes has work, so that all make one more pass."""


class CrossEncoder(nn.Module):
    """A cross-encoder. With pooling "mean", "cls" or "product" its head is `head`, with others it is in the encoder.

    Args:
        encoder: encoder as transformers loads it.
        pooling: how the hidden states of a pair become the input of the head.
        head: layer from pooled states to a score; None if the encoder has it.
        label: index of the label that means "relevant" in a classifier of two labels; None if there is one score.
        query_prompt: text that is written before each query.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pooling: Pooling,
        head: nn.Module | None,
        label: int | None = None,
        query_prompt: str = "",
    ) -> None:
        super().__init__()
        self.encoder, self.pooling, self.head = encoder, pooling, head
        self.label, self.query_prompt = label, query_prompt
        self.adapter: Any = None  # peft's settings of the low-rank adapter that is in the encoder; None without one
        self.lockstep: Lockstep | None = None  # of processes that compute it together
        self.full_precision: dict[str, nn.Module] = {}  # on the CPU: layers of which the encoder has rounded ones

    def make_tokens(self, tokenizer: Any, limits: TokenLimits) -> PairTokenizer:
        """Return what turns the texts of a pair into this model's input."""
        return PairTokenizer(tokenizer, limits, self.query_prompt)

    def make_packed(self) -> Any:
        """Return the model over pairs without padding where it has a way of its own; None where its parts have."""
        return None

    def write_description(self, folder: Path) -> None:
        """Write what a model folder needs beside weights, tokenizer and lengths; nothing for most."""

    def checkpoint_weights(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint must hold: all, or with an adapter those that are trained."""
        weights: dict[str, Tensor] = self.state_dict()
        if self.adapter is None:
            return weights
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in weights.items() if name in trained}

    def load_checkpoint_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load what `checkpoint_weights` returned.

        Raises:
            RuntimeError: the weights are of another model.
        """
        if self.adapter is not None and weights.keys() != self.checkpoint_weights().keys():
            raise RuntimeError("the names of trained weights differ")
        self.load_state_dict(dict(weights), strict=self.adapter is None)

    def score_of_logits(self, logits: Tensor) -> Tensor:
        """Return scores (pairs,) from a classifier's logits: the only one, or log P of the relevant label of two."""
        return logits.squeeze(-1) if self.label is None else logits.log_softmax(dim=-1)[:, self.label]

    def forward(self, batch: PaddedBatch) -> Tensor:
        """Return scores (pairs,) in float32, whatever precision the encoder ran in."""
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        if batch.has_types:
            inputs["token_type_ids"] = batch.segments
        out = self.encoder(**inputs)
        if self.head is None:
            logits: Tensor = out.logits  # transformers' outputs are untyped
            return self.score_of_logits(logits.float())
        hidden = out.last_hidden_state.float()
        with torch.autocast(hidden.device.type, enabled=False):  # in bf16 scores tie: those of 8 % of 100 documents
            scores: Tensor = self.head(self._pooled(hidden, batch))
            return scores.squeeze(-1)

    def _pooled(self, hidden: Tensor, batch: PaddedBatch) -> Tensor:
        """Return (pairs, hidden size), from the last hidden states (pairs, longest, hidden size)."""
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "mean":
            return _mean(hidden, batch.mask)
        query = normalize(_mean(hidden, batch.mask - batch.segments), dim=1)
        return query * normalize(_mean(hidden, batch.segments), dim=1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return (pairs, hidden size): the mean of the states where `mask` (pairs, longest) is 1."""
    weights = mask.unsqueeze(-1).float()
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def load(files: BaseFiles, pooling: str, seed: int) -> CrossEncoder:
    """Return the base with a head, as a cross-encoder; weights that its files do not hold are sampled from `seed`.

    Args:
        files: files of the base, as `bases.locate` finds them.
        pooling: "product", "mean" or "classifier"; "auto" takes the base's own.
        seed: seed of a new head's weights.

    Raises:
        UsageError: the folder holds no encoder that transformers' Auto classes know.

    Example:
        Given the files of a base model, as `models.bases.locate("minilm")` returns them:

        >>> load(files, "auto", seed=1).pooling
        'mean'
    """
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging

    model_folders.check(files.folder)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped; it draws over the log and the live display
    chosen = files.pooling if pooling == "auto" else msgspec.convert(pooling, Pooling)
    reading = files.reading()
    torch.manual_seed(derive(seed, "head"))
    safe = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True, "dtype": torch.float32}
    try:
        if (config := lightning_checkpoint.encoder_config(files.folder)) is not None:
            safe["config"] = config
        if chosen == "classifier":
            model, info = AutoModelForSequenceClassification.from_pretrained(
                files.folder, num_labels=1 if reading.label is None else 2, output_loading_info=True, **safe
            )
            _check_weights(info, reading, files.adapter)
            dropout.replace_dropout(model)
            return CrossEncoder(model, chosen, None, reading.label, reading.query_prompt)
        encoder, info = AutoModel.from_pretrained(files.folder, output_loading_info=True, **safe)
        _check_weights(info, reading, files.adapter)
        if files.layers:
            _select_layers(encoder, files.layers)
        if files.equal_token_types:
            _equalize_token_types(encoder)
        size = int(encoder.config.hidden_size)
        head = _head(files.head_folder, chosen, size, is_trained=reading.head == "trained")
    except UsageError:
        raise
    except Exception as error:  # the library may raise anything on files from elsewhere
        what = f"transformers cannot load it as an encoder: {_reason(error)}"
        raise UsageError(what, where=str(files.folder), code="not-an-encoder") from error
    dropout.replace_dropout(encoder)
    if getattr(encoder, "pooler", None) is not None:  # the pooler reads [CLS], which a mean does not use
        encoder.pooler.requires_grad_(False)
    return CrossEncoder(encoder, chosen, head, query_prompt=reading.query_prompt)


_NEW_WITH_HEAD = re.compile(r"^(?:classifier|score|pre_classifier|head)\.|(?:^|\.)pooler\.")


def _check_weights(info: Mapping[str, Any], reading: ModelReading, adapter: Adapter | None) -> None:
    """Check that the files held all weights but those of a fresh head, or of a head that an adapter brings.

    Raises:
        UsageError: transformers made weights at random that a trained model has.
    """
    may_be_new = reading.head == "fresh" or reading.pooling != "classifier"
    brought = adapters.weights_of(adapter.folder) if adapter is not None else {}
    missing = sorted(
        key for key in info["missing_keys"] if key not in brought and not (may_be_new and _NEW_WITH_HEAD.search(key))
    )
    if missing and adapter is not None:
        what = f"neither the adapter nor its base holds {shown(missing[0], 80)}, which was random when it was trained"
        hint = "train it again with modules_to_save for all of the head"
        raise UsageError(what, where=str(adapter.folder), hint=hint, code="head-untrained")
    if missing:
        what = f"the model's files lack {counted(len(missing), 'weight')} of the model, such as {shown(missing[0], 80)}"
        raise UsageError(what, where=reading.family, hint="take the whole model", code="weights-incomplete")


def _select_layers(encoder: Any, layers: Sequence[int]) -> None:
    """Keep only the layers at `layers`, in that order, of an encoder of BERT's family."""
    stack = encoder.encoder
    stack.layer = nn.ModuleList([stack.layer[number] for number in layers])
    encoder.config.num_hidden_layers = len(layers)


def tie_token_types(model: CrossEncoder) -> bool:
    """Make all token types one, now and in training; return whether the encoder tells several apart.

    Their embeddings are set equal, and each gets the sum of all their gradients, so that they stay equal bit for bit.
    The model is what it would be if every token were of type 0, and any library that gives it types scores alike. A
    gradient's norm, by which it is clipped, counts that sum once a type.
    """
    called = ((name, module) for name, module in model.encoder.named_modules() if isinstance(module, nn.Embedding))
    tables = [table for name, table in called if "token_type_embeddings" in name and table.weight.shape[0] > 1]
    for table in tables:
        weight = table.weight
        with torch.no_grad():
            weight[1:] = weight[0]
        if weight.requires_grad:
            weight.register_hook(_summed_over_types)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return bool(tables)


def _summed_over_types(gradient: Tensor) -> Tensor:
    """Return the gradient of each type's embedding as the sum of all of them."""
    return gradient.sum(dim=0, keepdim=True).repeat(len(gradient), 1)


@torch.no_grad()
def _equalize_token_types(encoder: Any) -> None:
    """Copy the embedding of token type 0 over all others."""
    table = encoder.embeddings.token_type_embeddings.weight
    table[1:] = table[0]


def _reason(error: Exception) -> str:
    """Return the first line of a library's message, or the kind of its error where it has no message."""
    return shown(next(iter(str(error).splitlines()), ""), 300) or type(error).__name__


COSINE_SCALE = 20.0  # scores of a new product head: 20 times the cosine, the spread a softmax over a group can use


def _head(folder: Path, pooling: Pooling, size: int, *, is_trained: bool) -> nn.Module:
    """Return the head: the saved one, or a new linear one with small random weights (mean) or the cosine (product)."""
    if is_trained and module_head.has_modules(folder):
        return module_head.load_head(folder)
    has_config = (folder / "config.json").is_file()  # an adapter saved alone has none
    if (
        is_trained
        and has_config
        and lightning_checkpoint.is_lightning(model_folders.json_object(folder / "config.json"))
    ):
        return module_head.head_of_layers(lightning_checkpoint.head_layers(folder), str(folder))
    head = nn.Linear(size, 1)
    saved = folder / HEAD_WEIGHTS
    if is_trained and saved.is_file():
        weights = load_file(saved)
        head.load_state_dict({name.removeprefix("linear."): value for name, value in weights.items()})
        return head
    if pooling == "product":
        nn.init.constant_(head.weight, COSINE_SCALE)
    else:
        nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def load_tokenizer(folder: Path) -> Any:
    """Return the fast tokenizer of a model folder.

    Raises:
        UsageError: there is none that transformers can load.
    """
    from transformers import AutoTokenizer

    model_folders.check(folder)
    try:
        options = lightning_checkpoint.tokenizer_options(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # the library may raise anything on files from elsewhere
        raise UsageError(f"no tokenizer: {_reason(error)}", where=str(folder)) from error


def set_dropout(model: CrossEncoder, rate: float | None) -> None:
    """Set every dropout of the model to `rate`; None leaves the base's own."""
    if rate is None:
        return
    for name, module in model.named_modules():
        if "lora_dropout" in name:  # an adapter has its own
            continue
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "dropout_prob", None), float):  # attention that calls functional dropout
            setattr(module, "dropout_prob", rate)  # noqa: B010 - torch types every attribute of a module as a tensor


def freeze(model: CrossEncoder, what: str, layers: int = 0) -> None:
    """Keep parts of the encoder from being trained.

    The paper freezes positions; word embeddings are half of a small base's weights, and few of them meet a small
    training set. The module that holds them is called `embeddings` in every encoder of transformers. Layers below all
    that is trained need no backward pass, which is two thirds of their time.

    Args:
        model: cross-encoder whose weights are frozen in place.
        what: "positions" (position embeddings), "embeddings" (all of them), or "nothing".
        layers: number of layers to freeze, counted from the bottom.

    Raises:
        UsageError: the encoder has fewer layers.
    """
    highest = -1
    for name, parameter in model.encoder.named_parameters():
        is_embedding = any(table in f".{name}" for table in _EMBEDDING_TABLES)
        if is_embedding and (what == "embeddings" or (what == "positions" and "position" in name)):
            parameter.requires_grad_(False)
        place = _LAYER_NUMBER.search(f".{name}")
        if place is not None:
            highest = max(highest, int(place[1]))
            if int(place[1]) < layers:
                parameter.requires_grad_(False)
    if layers > highest + 1:
        what = f"freeze_layers = {layers}, but the encoder has {highest + 1} layers"
        raise UsageError(what, hint="give fewer; 0 trains them all", code="too-many-frozen-layers")


_EMBEDDING_TABLES = (".embeddings.", ".embed_tokens.", ".shared.")  # what encoders and language models call them
_LAYER_NUMBER = re.compile(r"\.(?:layer|layers)\.([0-9]+)\.")  # names of layers in transformers' encoders


def save(model: CrossEncoder, tokenizer: Any, folder: Path, limits: TokenLimits) -> None:
    """Write a model folder that transformers and sentence-transformers load.

    A classifier loads with AutoModelForSequenceClassification; it and "mean" load as sentence-transformers'
    CrossEncoder with equal scores, wherever the query needs no cut. A "product" no other library can express: its
    encoder loads with AutoModel, and its README says the rest. `cerank.json` holds what those formats cannot express.

    Args:
        model: the cross-encoder, on any device.
        tokenizer: the base's tokenizer, as transformers loads it.
        folder: where to write; it is made if it does not exist.
        limits: lengths in tokens that the model was trained with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder: Any = model.encoder
    if model.head is None:
        encoder.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    encoder.save_pretrained(folder)
    tokenizer.model_max_length = limits.max_length
    tokenizer.backend_tokenizer.no_truncation()  # it keeps the last call's, which a resumed attempt may not have made
    tokenizer.save_pretrained(folder)
    write_checkpoint_config(model, folder, limits)
    write_head(model, folder)
    if isinstance(model.head, nn.Linear) and model.pooling in {"mean", "cls"}:
        _write_sentence_transformers(model.head.in_features, model.pooling, folder)
    (folder / "README.md").write_text(_model_card(model.pooling), encoding="utf8")


def write_checkpoint_config(model: CrossEncoder, folder: Path, limits: TokenLimits, *, base_sha256: str = "") -> None:
    """Write `cerank.json`: what other formats cannot express; and a language model's declaration.

    `base_sha256` is the fingerprint of the base that an adapter was trained over.
    """
    config: dict[str, object] = {
        "pooling": model.pooling,
        "max_length": limits.max_length,
        "max_query_length": limits.max_query_length,
    }
    if (limits.max_document_length, limits.truncation) != (0, "document"):
        config |= {"max_document_length": limits.max_document_length, "truncation": limits.truncation}
    if model.query_prompt:
        config["query_prompt"] = model.query_prompt
    if base_sha256:
        config["base_sha256"] = base_sha256
    _write_json(folder / CHECKPOINT_CONFIG, config)
    model.write_description(folder)


def write_head(model: CrossEncoder, folder: Path) -> None:
    """Write the head that is not part of the encoder, where sentence-transformers looks for it; nothing without one."""
    if isinstance(model.head, nn.Sequential):
        module_head.write_head(model.head, model.pooling, folder)
    elif model.head is not None:
        weights = {
            f"linear.{name}": value.detach().cpu().contiguous() for name, value in model.head.state_dict().items()
        }
        (folder / HEAD_WEIGHTS).parent.mkdir(exist_ok=True)
        save_file(weights, folder / HEAD_WEIGHTS)


def _write_sentence_transformers(size: int, pooling_mode: str, folder: Path) -> None:
    """Write the files from which sentence-transformers >= 5.4 builds a CrossEncoder with that pooling and head."""
    modules = [
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ("2_Dense", "sentence_transformers.base.modules.dense.Dense"),
    ]
    rows = [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (path, kind) in enumerate(modules)]
    _write_json(folder / "modules.json", rows)
    identity = "torch.nn.modules.linear.Identity"
    _write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", "activation_fn": identity})
    method = {"method": "forward", "method_output_name": "last_hidden_state"}
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": method},
        "module_output_name": "token_embeddings",
    }
    _write_json(folder / "sentence_bert_config.json", transformer)
    pooling = {"embedding_dimension": size, "pooling_mode": pooling_mode, "include_prompt": True}
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    dense = {
        "in_features": size,
        "out_features": 1,
        "bias": True,
        "activation_function": identity,
        "module_input_name": "sentence_embedding",
        "module_output_name": "scores",
    }
    _write_json(folder / "2_Dense" / "config.json", dense)


def _write_json(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf8")


_LOADING_NOTES: dict[Pooling, str] = {
    "classifier": """\
It loads with transformers' AutoModelForSequenceClassification, with sentence-transformers, or with cerank:
""",
    "mean": """\
Its score is a linear layer on the mean of the last hidden states. transformers has no class for that: its AutoModel
loads the encoder alone. Load all of it with sentence-transformers, or in three lines of cerank:
""",
    "cls": """\
Its score is a head on the last hidden state of the first token. transformers has no class for that: its AutoModel loads
the encoder alone. Load all of it with sentence-transformers, or in three lines of cerank:
""",
    "answer": """\
It is a language model, and its score comes from its answer to the question that `reranker.toml` holds. transformers'
Auto class loads it, and leaves the question to you. Three lines of cerank load all of it:
""",
    "product": """\
Its score is a linear layer on the product of the query's and the document's mean states, each scaled to length 1.
Neither transformers nor sentence-transformers has a class for that: transformers' AutoModel loads the encoder alone.
Three lines of cerank load all of it:
""",
}


def _model_card(pooling: Pooling) -> str:
    """Return the text of the model folder's README: how to load it, and what cannot."""
    elsewhere = "\n    from sentence_transformers import CrossEncoder\n"
    elsewhere += '    CrossEncoder("this folder").predict([("a query", "a passage")])\n'
    return (
        "# A cross-encoder fine-tuned with cerank\n\n"
        + _LOADING_NOTES[pooling]
        + (elsewhere if pooling not in {"product", "answer"} else "")
        + "\n    from cerank.inference.rerank import Scorer\n"
        + '    scorer = Scorer.load("this folder")\n'
        + '    scorer.score([("a query", "a passage")])\n'
    )


class CheckpointConfig(msgspec.Struct, frozen=True):
    """What `cerank.json` in a checkpoint holds: pooling and lengths."""

    pooling: Pooling
    limits: TokenLimits

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """Return the configuration of a checkpoint.

        Raises:
            MissingError: the folder is no checkpoint of cerank.
            UsageError: its `cerank.json` cannot be read.
        """
        try:
            values = json.loads(read_file(folder / CHECKPOINT_CONFIG))
            limits = TokenLimits(
                int(values["max_length"]),
                int(values["max_query_length"]),
                int(values.get("max_document_length", 0)),
                str(values.get("truncation", "document")),
            )
            return cls(msgspec.convert(values["pooling"], Pooling), limits)
        except FileNotFoundError as error:
            what = f"no {CHECKPOINT_CONFIG}, so this is no checkpoint of cerank"
            raise MissingError(what, where=str(folder)) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UsageError("the file cannot be read", where=str(folder / CHECKPOINT_CONFIG)) from error
