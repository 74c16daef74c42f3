"""Encoders over packs: last hidden states of pairs that lie end to end, equal to those of each pair alone.

BERT's family goes layer by layer through its own parameters, with query, key and value in one product and the last
layer for the pooled token alone. What else asks transformers' registry for its attention runs unmodified as one row.

Invariant: no parameter is copied for good; gradients reach the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from cerank.learn.attention import How, attend, packed
from cerank.learn.packing import Pack

_LIKE_BERT = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}
_BY_INTERFACE = {"modernbert", "distilbert"}
_COUNT_FROM_PADDING = {"roberta", "xlm-roberta", "camembert"}  # whose first position is the one after padding's


class Encoder(Protocol):
    """An encoder that takes packs."""

    def prepare(self, dtype: torch.dtype) -> Any:
        """The weights as `states` wants them, products in `dtype`; good until the model's change."""

    def states(self, pack: Pack, weights: Any, *, firsts: bool) -> Tensor:
        """Last hidden states in float32: (pairs, size) of first tokens alone, else (tokens, size)."""


def encoder_of(base: Any) -> Encoder | None:
    """The encoder of a base model of transformers (no head on it); None for those that only take padded batches."""
    kind = base.config.model_type
    if kind in _LIKE_BERT and not base.config.is_decoder and hasattr(base, "encoder"):
        return LikeBert(base)
    return ByInterface(base) if kind in _BY_INTERFACE else None


class _Layer(msgspec.Struct, frozen=True):
    """A layer's weights; query, key and value above one another."""

    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]


class LikeBert:
    """BERT, MiniLM, ELECTRA, RoBERTa and XLM-RoBERTa: post-norm layers whose modules bear the same names."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._layers = list(base.encoder.layer)

    def prepare(self, dtype: torch.dtype) -> list[_Layer]:
        """Each layer's weights in `dtype`, joined; gradients pass through to the parameters."""

        def cast(module: nn.Linear) -> tuple[Tensor, Tensor]:
            return module.weight.to(dtype), module.bias.to(dtype)

        out = []
        for layer in self._layers:
            own = layer.attention.self
            three = [cast(module) for module in (own.query, own.key, own.value)]
            joined = torch.cat([weight for weight, _ in three]), torch.cat([bias for _, bias in three])
            out.append(
                _Layer(
                    joined, cast(layer.attention.output.dense), cast(layer.intermediate.dense), cast(layer.output.dense)
                )
            )
        return out

    def states(self, pack: Pack, weights: list[_Layer], *, firsts: bool) -> Tensor:
        """See `Encoder`."""
        hidden = self._embedded(pack)
        for layer, weight in zip(self._layers[:-1], weights[:-1], strict=True):
            hidden = _through(layer, weight, hidden, pack, firsts=False)
        return _through(self._layers[-1], weights[-1], hidden, pack, firsts=firsts)

    def _embedded(self, pack: Pack) -> Tensor:
        """(tokens, size)"""
        places = pack.places
        if self._base.config.model_type in _COUNT_FROM_PADDING:
            places = _from_padding(pack, self._base.embeddings.padding_idx)
        types = pack.segments if pack.has_types else torch.zeros_like(pack.segments)
        row = (part.unsqueeze(0) for part in (pack.ids, types, places))
        hidden = self._base.embeddings(**dict(zip(("input_ids", "token_type_ids", "position_ids"), row, strict=True)))
        if hasattr(self._base, "embeddings_project"):  # ELECTRA's narrower embeddings
            hidden = self._base.embeddings_project(hidden)
        embedded: Tensor = hidden[0]
        return embedded


def _from_padding(pack: Pack, padding: int) -> Tensor:
    """RoBERTa's positions: counted from padding's own on, which any padding token within a text keeps."""
    real = (pack.ids != padding).long()
    seen = real.cumsum(0)
    sizes = pack.edges.diff().long()
    before = (seen - real)[pack.starts].repeat_interleave(sizes)
    return (seen - before) * real + padding


def _through(layer: Any, weight: _Layer, hidden: Tensor, pack: Pack, *, firsts: bool) -> Tensor:
    """One layer: (tokens, size) to (tokens, size), or to (pairs, size) of the first tokens.

    The sums that run past the layers stay float32; only products and what stands between them are in the weights' type.
    """
    own, dtype = layer.attention.self, weight.qkv[0].dtype
    narrow = hidden.to(dtype)
    if firsts:
        size = len(weight.qkv[1]) // 3
        hidden = hidden[pack.starts]
        query = linear(hidden.to(dtype), weight.qkv[0][:size], weight.qkv[1][:size])
        key, value = linear(narrow, weight.qkv[0][size:], weight.qkv[1][size:]).chunk(2, dim=-1)
    else:
        query, key, value = linear(narrow, *weight.qkv).chunk(3, dim=-1)
    query, key, value = (part.view(len(part), own.num_attention_heads, -1) for part in (query, key, value))
    how = How(own.scaling, own.dropout.p if own.training else 0.0)
    mixed = attend(query, key, value, pack, how)
    hidden = _closed(layer.attention.output, linear(mixed.flatten(1), *weight.out), hidden)
    risen = layer.intermediate.intermediate_act_fn(linear(hidden.to(dtype), *weight.up))
    return _closed(layer.output, linear(risen, *weight.down), hidden)


def _closed(part: Any, added: Tensor, hidden: Tensor) -> Tensor:
    """The end of half a layer: dropout, sum, norm."""
    norm = part.LayerNorm
    if part.training and part.dropout.p:
        added = dropout(added, part.dropout.p, training=True)
    normed: Tensor = norm(hidden + added)
    return normed


class ByInterface:
    """Any other encoder that looks its attention up in transformers' registry; it runs as it is, on one row."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def prepare(self, dtype: torch.dtype) -> torch.dtype:
        """The type of its products: autocast keeps the weights it casts as long as the caller's autocast lasts."""
        return dtype

    def states(self, pack: Pack, weights: torch.dtype, *, firsts: bool) -> Tensor:
        """See `Encoder`."""
        narrow = weights != torch.float32
        ids, places = pack.ids.unsqueeze(0), pack.places.unsqueeze(0)
        with packed(self._base, pack) as given, torch.autocast(pack.ids.device.type, torch.bfloat16, enabled=narrow):
            out = self._base(input_ids=ids, position_ids=places, **given)
        hidden: Tensor = out.last_hidden_state[0].float()
        return hidden[pack.starts] if firsts else hidden


Head = Callable[[Any, Tensor], Tensor]


def classifier_head(model: Any) -> Head | None:
    """What transformers' classifier does with first states (pairs, size), as logits (pairs, 1); None where unknown."""
    return _HEADS.get(model.config.model_type)


def _bert_head(model: Any, firsts: Tensor) -> Tensor:
    return model.classifier(model.dropout(model.bert.pooler(firsts.unsqueeze(1))))  # type: ignore[no-any-return]


def _first_row_head(model: Any, firsts: Tensor) -> Tensor:
    return model.classifier(firsts.unsqueeze(1))  # type: ignore[no-any-return]


def _distilbert_head(model: Any, firsts: Tensor) -> Tensor:
    return model.classifier(model.dropout(torch.relu(model.pre_classifier(firsts))))  # type: ignore[no-any-return]


def _modernbert_head(model: Any, pooled: Tensor) -> Tensor:
    return model.classifier(model.drop(model.head(pooled)))  # type: ignore[no-any-return]


_HEADS: dict[str, Head] = {
    "bert": _bert_head,
    "electra": _first_row_head,
    "roberta": _first_row_head,
    "xlm-roberta": _first_row_head,
    "camembert": _first_row_head,
    "distilbert": _distilbert_head,
    "modernbert": _modernbert_head,
}
