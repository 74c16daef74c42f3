"""Run encoders over packed pairs; the last hidden states equal those of each pair alone.

Encoders of BERT's family run layer by layer on the model's own parameters, with query, key and value in one matrix
product, and the last layer for the pooled token alone. Other encoders that take their attention from transformers'
registry run unmodified, on one row.

Invariant: no parameter is copied for good; gradients reach the model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn

from cerank.kernels.attention import ARGUMENT, attend, use_packed_attention
from cerank.kernels.dropout import apply_dropout
from cerank.kernels.packed_linear import LinearLayer, is_one_product, linear_layer, weight_of
from cerank.kernels.packing import Pack
from cerank.kernels.recomputation import apply_layer
from cerank.kernels.varlen_attention import AttentionOptions

_BERT_LIKE = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}
_WITH_ATTENTION_INTERFACE = {"modernbert", "distilbert"}
_POSITIONS_FROM_PADDING = {"roberta", "xlm-roberta", "camembert"}  # the first position comes after padding's


class PackedEncoder(Protocol):
    """An encoder that reads packed pairs."""

    def prepared(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """Yield the weights in the form that `states` takes, products in `dtype`; valid until the model changes."""

    def states(self, pack: Pack, weights: Any, *, firsts: bool) -> Tensor:
        """Return last hidden states in float32: (pairs, size) of first tokens alone, else (tokens, size)."""


def packed_encoder(base: Any) -> PackedEncoder | None:
    """Return the packed encoder of a transformers base model without a head; None if it only takes padded batches."""
    kind = base.config.model_type
    if kind in _BERT_LIKE and not base.config.is_decoder and hasattr(base, "encoder"):
        return BertLikeEncoder(base)
    return AttentionInterfaceEncoder(base) if kind in _WITH_ATTENTION_INTERFACE else None


class _OutputLayers(msgspec.Struct, frozen=True):
    """The linear layers after attention in one layer, and their type."""

    dtype: torch.dtype
    out: LinearLayer
    up: LinearLayer
    down: LinearLayer
    is_gelu: bool  # whether the exact GELU is between up and down

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype, *, is_gelu: bool, for_few_rows: bool = False) -> _OutputLayers:
        """Return those of a layer of BERT's family."""
        modules = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
        out, up, down = (linear_layer(module, dtype=dtype, for_few_rows=for_few_rows) for module in modules)
        return cls(dtype, out, up, down, is_gelu)


class _LayerWeights(msgspec.Struct, frozen=True):
    """The linear layers of one layer; `inner` stacks query, key and value, or key and value beside `query`."""

    query: LinearLayer | None  # apart in the last layer, where only first tokens query
    inner: LinearLayer
    rest: _OutputLayers


class _FoldedLastLayer(msgspec.Struct, frozen=True):
    """The last layer's keys and values, where only first tokens query them and no gradient is needed.

    Attention is linear in keys and values before and after its softmax: q (W_k x) = (W_k^T q) x, and a weighted mean of
    W_v x is W_v of the weighted mean of x. So neither keys nor values of all tokens are computed, which saves a
    thirtieth of the work of six layers. The keys' bias shifts all products of a query alike, which the softmax cancels.
    The layers after it are in float32: there is one row a pair, and in bf16 oneDNN would build a kernel for each new
    number of rows.
    """

    query: LinearLayer
    rest: _OutputLayers
    keys: Tensor  # (heads, size, hidden), with the scale of the products
    values: Tensor  # (heads, hidden, size)
    bias: Tensor  # (heads, 1, size) of the values

    @classmethod
    def of(cls, layer: Any, *, is_gelu: bool) -> _FoldedLastLayer:
        """Return that of a layer of BERT's family."""
        own = layer.attention.self
        heads, size = own.num_attention_heads, own.attention_head_size
        values = weight_of(own.value).view(heads, size, -1).transpose(1, 2).contiguous()
        keys = weight_of(own.key).view(heads, size, -1) * own.scaling
        query = linear_layer(own.query, dtype=torch.float32, for_few_rows=True)
        rest = _OutputLayers.of(layer, torch.float32, is_gelu=is_gelu, for_few_rows=True)
        return cls(query, rest, keys, values, own.value.bias.view(heads, 1, size))

    def mixed(self, firsts: Tensor, hidden: Tensor, pack: Pack) -> Tensor:
        """Return (pairs, all heads): attention of first tokens (pairs, hidden) over all states (tokens, hidden)."""
        heads, size, _ = self.keys.shape
        projected = torch.bmm(self.query(firsts).view(-1, heads, size).transpose(0, 1), self.keys).transpose(0, 1)
        means = []
        for span, queries, states in zip(pack.spans, pack.split_firsts(projected), pack.split(hidden), strict=True):
            own = states.view(span.pairs, span.length, -1)
            means.append(torch.bmm(torch.bmm(queries, own.transpose(1, 2)).softmax(dim=-1), own))
        mixed = torch.baddbmm(self.bias, torch.cat(means).transpose(0, 1), self.values)
        return mixed.transpose(0, 1).flatten(1)


class _EncoderWeights(msgspec.Struct, frozen=True):
    """The linear layers of all layers, and their type."""

    dtype: torch.dtype
    layers: tuple[_LayerWeights, ...]
    last: _FoldedLastLayer | None  # the last layer's keys and values, where they may be folded


class BertLikeEncoder:
    """An encoder of BERT's family: post-norm layers with the module names of BERT, ELECTRA and RoBERTa."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._layers = list(base.encoder.layer)

    @contextlib.contextmanager
    def prepared(self, dtype: torch.dtype) -> Iterator[_EncoderWeights]:
        """Yield each layer's linear layers in `dtype`; gradients reach the parameters unless in inference mode."""
        yield self.prepare(dtype)

    def prepare(self, dtype: torch.dtype) -> _EncoderWeights:
        """Return each layer's linear layers in `dtype`, with the weights as they are now."""

        def product(*modules: nn.Module) -> LinearLayer:
            return linear_layer(*modules, dtype=dtype)

        is_gelu = self._base.config.hidden_act == "gelu"
        out = []
        for layer in self._layers:
            own = layer.attention.self
            is_last = layer is self._layers[-1]
            inner = product(own.key, own.value) if is_last else product(own.query, own.key, own.value)
            rest = _OutputLayers.of(layer, dtype, is_gelu=is_gelu)
            out.append(_LayerWeights(product(own.query) if is_last else None, inner, rest))
        # on a GPU the products of each length would be launched one by one: most launches of a small model
        is_cpu = own.value.weight.device.type == "cpu"
        folds = is_cpu and torch.is_inference_mode_enabled() and not own.training
        folds = folds and is_one_product(own.key) and is_one_product(own.value)
        return _EncoderWeights(dtype, tuple(out), _FoldedLastLayer.of(layer, is_gelu=is_gelu) if folds else None)

    def states(self, pack: Pack, weights: _EncoderWeights, *, firsts: bool) -> Tensor:
        """Return the last hidden states; see `PackedEncoder`."""
        hidden = self.embedded(pack)
        for layer, products in zip(self._layers, weights.layers, strict=True):
            wants_firsts = firsts and products is weights.layers[-1]
            if wants_firsts and weights.last is not None:
                firsts_alone = hidden[pack.starts]
                last = weights.last
                mixed = last.mixed(firsts_alone, hidden, pack).to(last.rest.dtype)
                hidden = _after_attention(layer, last.rest, mixed, firsts_alone)
            else:
                apply = partial(_apply_layer, layer, products, pack=pack, dtype=weights.dtype, firsts=wants_firsts)
                hidden = apply_layer(layer, apply, hidden)
        return hidden

    def embedded(self, pack: Pack) -> Tensor:
        """Return the embeddings (tokens, size)."""
        places = pack.places
        if self._base.config.model_type in _POSITIONS_FROM_PADDING:
            places = _positions_from_padding(pack, self._base.embeddings.padding_idx)
        types = pack.segments if pack.has_types else torch.zeros_like(pack.segments)
        row = (part.unsqueeze(0) for part in (pack.ids, types, places))
        hidden = self._base.embeddings(**dict(zip(("input_ids", "token_type_ids", "position_ids"), row, strict=True)))
        if hasattr(self._base, "embeddings_project"):  # ELECTRA's narrower embeddings
            hidden = self._base.embeddings_project(hidden)
        embedded: Tensor = hidden[0]
        return embedded


def _positions_from_padding(pack: Pack, padding: int) -> Tensor:
    """Return RoBERTa's positions: counted from padding's own on, which any padding token within a text keeps."""
    real = (pack.ids != padding).long()
    seen = real.cumsum(0)
    sizes = pack.edges.diff().long()
    before = (seen - real)[pack.starts].repeat_interleave(sizes, output_size=len(real))
    return (seen - before) * real + padding


def _apply_layer(
    layer: Any, weight: _LayerWeights, hidden: Tensor, *, pack: Pack, dtype: torch.dtype, firsts: bool
) -> Tensor:
    """Apply one layer: (tokens, size) to (tokens, size), or to (pairs, size) of the first tokens.

    The residual sums stay float32; only matrix products and what lies between them are in `dtype`.
    """
    own, inputs = layer.attention.self, hidden.to(dtype)
    if weight.query is None:
        query, key, value = weight.inner(inputs).chunk(3, dim=-1)
    else:
        key, value = weight.inner(inputs).chunk(2, dim=-1)
        if firsts:
            hidden, inputs = hidden[pack.starts], inputs[pack.starts]
        query = weight.query(inputs)
    query, key, value = (part.view(len(part), own.num_attention_heads, -1) for part in (query, key, value))
    options = AttentionOptions(own.scaling, own.dropout.p if own.training else 0.0)
    mixed = attend(query, key, value, pack, options)
    return _after_attention(layer, weight.rest, mixed.flatten(1), hidden)


def _after_attention(layer: Any, rest: _OutputLayers, mixed: Tensor, hidden: Tensor) -> Tensor:
    """Apply the rest of a layer to the output of attention and the states it began with; both (tokens, size)."""
    hidden = _add_and_norm(layer.attention.output, rest.out, mixed, hidden)
    inputs = hidden.to(rest.dtype)
    inner = rest.up.gelu(inputs) if rest.is_gelu else layer.intermediate.intermediate_act_fn(rest.up(inputs))
    return _add_and_norm(layer.output, rest.down, inner, hidden)


def _add_and_norm(part: Any, product: LinearLayer, states: Tensor, hidden: Tensor) -> Tensor:
    """Apply the end of half a layer: linear layer, dropout, sum, norm; `hidden` may be overwritten."""
    if part.training and part.dropout.p:
        summed = hidden + apply_dropout(product(states), part.dropout.p)
    else:
        summed = product.add_to(states, hidden)
    normed: Tensor = part.LayerNorm(summed)
    return normed


class AttentionInterfaceEncoder:
    """An encoder that takes its attention from transformers' registry; it runs unmodified on one row."""

    def __init__(self, base: Any) -> None:
        self._base = base

    @contextlib.contextmanager
    def prepared(self, dtype: torch.dtype) -> Iterator[torch.dtype]:
        """Yield the type of its products; autocast keeps the weights it casts until the caller's autocast ends."""
        with use_packed_attention(self._base):
            yield dtype

    def states(self, pack: Pack, weights: torch.dtype, *, firsts: bool) -> Tensor:
        """Return the last hidden states; see `PackedEncoder`."""
        is_narrow = weights is not torch.float32
        ids, places = pack.ids.unsqueeze(0), pack.places.unsqueeze(0)
        with torch.autocast(pack.ids.device.type, weights if is_narrow else None, enabled=is_narrow):
            out = self._base(input_ids=ids, position_ids=places, **{ARGUMENT: pack})
        hidden: Tensor = out.last_hidden_state[0].float()
        return hidden[pack.starts] if firsts else hidden


Head = Callable[[Any, Tensor], Tensor]


def classifier_head(model: Any) -> Head | None:
    """Return the function from first states (pairs, size) to logits (pairs, 1) of a classifier; None if not known."""
    return _HEADS.get(model.config.model_type)


def _bert_head(model: Any, firsts: Tensor) -> Tensor:
    logits: Tensor = model.classifier(model.dropout(model.bert.pooler(firsts.unsqueeze(1))))
    return logits


def _first_row_head(model: Any, firsts: Tensor) -> Tensor:
    logits: Tensor = model.classifier(firsts.unsqueeze(1))
    return logits


def _distilbert_head(model: Any, firsts: Tensor) -> Tensor:
    logits: Tensor = model.classifier(model.dropout(torch.relu(model.pre_classifier(firsts))))
    return logits


def _modernbert_head(model: Any, pooled: Tensor) -> Tensor:
    logits: Tensor = model.classifier(model.drop(model.head(pooled)))
    return logits


_HEADS: dict[str, Head] = {
    "bert": _bert_head,
    "electra": _first_row_head,
    "roberta": _first_row_head,
    "xlm-roberta": _first_row_head,
    "camembert": _first_row_head,
    "distilbert": _distilbert_head,
    "modernbert": _modernbert_head,
}
