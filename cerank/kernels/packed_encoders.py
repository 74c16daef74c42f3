"""Encoders over packs: last hidden states of pairs that lie end to end, equal to those of each pair alone.

BERT's family goes layer by layer through its own parameters, with query, key and value in one product and the last
layer for the pooled token alone. What else asks transformers' registry for its attention runs unmodified as one row.

Invariant: no parameter is copied for good; gradients reach the model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn

from cerank.kernels.attention import ARGUMENT, attend, packed
from cerank.kernels.dropout import dropped
from cerank.kernels.packed_linear import Product, product_of
from cerank.kernels.packing import Pack
from cerank.kernels.varlen_attention import How

_LIKE_BERT = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}
_BY_INTERFACE = {"modernbert", "distilbert"}
_COUNT_FROM_PADDING = {"roberta", "xlm-roberta", "camembert"}  # whose first position is the one after padding's


class Encoder(Protocol):
    """An encoder that takes packs."""

    def prepared(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Within, the weights as `states` wants them, products in `dtype`; good until the model's change."""

    def states(self, pack: Pack, weights: Any, *, firsts: bool) -> Tensor:
        """Last hidden states in float32: (pairs, size) of first tokens alone, else (tokens, size)."""


def encoder_of(base: Any) -> Encoder | None:
    """The encoder of a base model of transformers (no head on it); None for those that only take padded batches."""
    kind = base.config.model_type
    if kind in _LIKE_BERT and not base.config.is_decoder and hasattr(base, "encoder"):
        return LikeBert(base)
    return ByInterface(base) if kind in _BY_INTERFACE else None


class _Rest(msgspec.Struct, frozen=True):
    """A layer's products after attention, and the type they are in."""

    dtype: torch.dtype
    out: Product
    up: Product
    down: Product
    is_gelu: bool  # the exact one, between up and down

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype, *, is_gelu: bool, of_few: bool = False) -> _Rest:
        """Of a layer of BERT's family."""
        modules = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
        out, up, down = (product_of(module, dtype=dtype, of_few=of_few) for module in modules)
        return cls(dtype, out, up, down, is_gelu)


class _Layer(msgspec.Struct, frozen=True):
    """A layer's products; `inner` holds query, key and value above one another, or without `query` key and value."""

    query: Product | None  # by itself where only some tokens ask
    inner: Product
    rest: _Rest


class _Folded(msgspec.Struct, frozen=True):
    """The last layer's keys and values where only first tokens ask, and no gradient is wanted.

    A query's products with all keys are the products of its image under the keys' weights with all states, and its
    mean of values is the values' image of its mean of states. So neither keys nor values are computed: a thirtieth of
    the work of six layers. The keys' bias moves all products of a query alike, which leaves its weights as they are.
    What follows is in float32 on a CPU: there is one row a pair, and bf16 would cost it a kernel for each such number.
    """

    query: Product
    rest: _Rest
    keys: Tensor  # (heads, size, hidden), with the scale of the products
    values: Tensor  # (heads, hidden, size)
    bias: Tensor  # (heads, 1, size) of the values

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype, *, is_gelu: bool) -> _Folded:
        """Of a layer of BERT's family, whose other products are in `dtype`."""
        own = layer.attention.self
        heads, size = own.num_attention_heads, own.attention_head_size
        values = own.value.weight.view(heads, size, -1).transpose(1, 2).contiguous()
        keys = own.key.weight.view(heads, size, -1) * own.scaling
        query = product_of(own.query, dtype=torch.float32, of_few=True)
        after = torch.float32 if own.value.weight.device.type == "cpu" else dtype
        rest = _Rest.of(layer, after, is_gelu=is_gelu, of_few=True)
        return cls(query, rest, keys, values, own.value.bias.view(heads, 1, size))

    def mixed(self, firsts: Tensor, hidden: Tensor, pack: Pack) -> Tensor:
        """What first tokens (pairs, hidden) draw from the states (tokens, hidden) of their pair; (pairs, all heads)."""
        heads, size, _ = self.keys.shape
        asked = torch.bmm(self.query(firsts).view(-1, heads, size).transpose(0, 1), self.keys).transpose(0, 1)
        means = []
        for span, one, states in zip(pack.spans, pack.split_firsts(asked), pack.split(hidden), strict=True):
            own = states.view(span.pairs, span.length, -1)
            means.append(torch.bmm(torch.bmm(one, own.transpose(1, 2)).softmax(dim=-1), own))
        drawn = torch.baddbmm(self.bias, torch.cat(means).transpose(0, 1), self.values)
        return drawn.transpose(0, 1).flatten(1)


class _Weights(msgspec.Struct, frozen=True):
    """All layers' products, and the type they are in."""

    dtype: torch.dtype
    layers: tuple[_Layer, ...]
    last: _Folded | None  # the last layer's keys and values, where they may be folded


class LikeBert:
    """BERT, MiniLM, ELECTRA, RoBERTa and XLM-RoBERTa: post-norm layers whose modules bear the same names."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._layers = list(base.encoder.layer)

    @contextlib.contextmanager
    def prepared(self, dtype: torch.dtype) -> Iterator[_Weights]:
        """Within, each layer's products in `dtype`; gradients pass through to parameters unless in inference mode."""
        yield self.prepare(dtype)

    def prepare(self, dtype: torch.dtype) -> _Weights:
        """The same for good."""

        def product(*modules: nn.Linear) -> Product:
            return product_of(*modules, dtype=dtype)

        is_gelu = self._base.config.hidden_act == "gelu"
        out = []
        for layer in self._layers:
            own = layer.attention.self
            is_last = layer is self._layers[-1]
            inner = product(own.key, own.value) if is_last else product(own.query, own.key, own.value)
            rest = _Rest.of(layer, dtype, is_gelu=is_gelu)
            out.append(_Layer(product(own.query) if is_last else None, inner, rest))
        folds = torch.is_inference_mode_enabled() and not own.training
        return _Weights(dtype, tuple(out), _Folded.of(layer, dtype, is_gelu=is_gelu) if folds else None)

    def states(self, pack: Pack, weights: _Weights, *, firsts: bool) -> Tensor:
        """See `Encoder`."""
        hidden = self._embedded(pack)
        for layer, products in zip(self._layers, weights.layers, strict=True):
            wants_firsts = firsts and products is weights.layers[-1]
            if wants_firsts and weights.last is not None:
                firsts_alone = hidden[pack.starts]
                last = weights.last
                mixed = last.mixed(firsts_alone, hidden, pack).to(last.rest.dtype)
                hidden = _after_attention(layer, last.rest, mixed, firsts_alone)
            else:
                hidden = _through(layer, products, hidden, pack, weights.dtype, firsts=wants_firsts)
        return hidden

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


def _through(layer: Any, weight: _Layer, hidden: Tensor, pack: Pack, dtype: torch.dtype, *, firsts: bool) -> Tensor:
    """One layer: (tokens, size) to (tokens, size), or to (pairs, size) of the first tokens.

    The sums that run past the layers stay float32; only products and what stands between them are in `dtype`.
    """
    own, narrow = layer.attention.self, hidden.to(dtype)
    if weight.query is None:
        query, key, value = weight.inner(narrow).chunk(3, dim=-1)
    else:
        key, value = weight.inner(narrow).chunk(2, dim=-1)
        if firsts:
            hidden, narrow = hidden[pack.starts], narrow[pack.starts]
        query = weight.query(narrow)
    query, key, value = (part.view(len(part), own.num_attention_heads, -1) for part in (query, key, value))
    how = How(own.scaling, own.dropout.p if own.training else 0.0)
    mixed = attend(query, key, value, pack, how)
    return _after_attention(layer, weight.rest, mixed.flatten(1), hidden)


def _after_attention(layer: Any, rest: _Rest, mixed: Tensor, hidden: Tensor) -> Tensor:
    """The rest of a layer, of what attention mixed and of the states it began with; both (tokens, size)."""
    hidden = _closed(layer.attention.output, rest.out, mixed, hidden)
    narrow = hidden.to(rest.dtype)
    risen = rest.up.gelu(narrow) if rest.is_gelu else layer.intermediate.intermediate_act_fn(rest.up(narrow))
    return _closed(layer.output, rest.down, risen, hidden)


def _closed(part: Any, product: Product, states: Tensor, hidden: Tensor) -> Tensor:
    """The end of half a layer: product, dropout, sum, norm; what `hidden` held may be lost."""
    if part.training and part.dropout.p:
        summed = hidden + dropped(product(states), part.dropout.p)
    else:
        summed = product.plus(states, hidden)
    normed: Tensor = part.LayerNorm(summed)
    return normed


class ByInterface:
    """Any other encoder that looks its attention up in transformers' registry; it runs as it is, on one row."""

    def __init__(self, base: Any) -> None:
        self._base = base

    @contextlib.contextmanager
    def prepared(self, dtype: torch.dtype) -> Iterator[torch.dtype]:
        """Within, the type of its products: autocast keeps the weights it casts as long as the caller's lasts."""
        with packed(self._base):
            yield dtype

    def states(self, pack: Pack, weights: torch.dtype, *, firsts: bool) -> Tensor:
        """See `Encoder`."""
        narrow = weights != torch.float32
        ids, places = pack.ids.unsqueeze(0), pack.places.unsqueeze(0)
        with torch.autocast(pack.ids.device.type, torch.bfloat16, enabled=narrow):
            out = self._base(input_ids=ids, position_ids=places, **{ARGUMENT: pack})
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
