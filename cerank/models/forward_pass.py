"""From pairs to scores by the fastest way that is exact for a model: packed where it can be, padded elsewhere.

Invariant: packing is used only after it gave, on pairs of several lengths, the scores that padding gives.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cerank.kernels.packed_encoders import Encoder, Head, LikeBert, classifier_head, encoder_of
from cerank.kernels.packing import Pack, filled, pack
from cerank.kernels.processor import bf16_pays
from cerank.models.cross_encoder import CrossEncoder
from cerank.tokenization.tokens import Pair, Tokens

Score = Callable[[Sequence[Pair]], Tensor]

CPU_BUDGET = 2048  # tokens a batch on a CPU: small enough to stay in cache
GPU_BUDGET = 65_536
# tokens; rows for oneDNN are multiples, as it builds a kernel for each number of rows it meets: 5 ms and half a
# megabyte in bf16, a tenth of that in float32
_STEPS = {"fp32": 8, "bf16": 32}
_CHECKED = (3, 11, 11, 40, 150)  # tokens of the pairs that packing is tried on; the longest exceeds ModernBERT's window
_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}  # of the largest score, or of 1


def budget_of(device: torch.device) -> int:
    """Tokens that go through a model at once where no gradient is wanted."""
    return CPU_BUDGET if device.type == "cpu" else GPU_BUDGET


def resolved(precision: str, device: torch.device) -> str:
    """ "fp32" or "bf16": as asked for, or for "auto" bf16 where the device multiplies it faster than float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_pays() else "fp32"


class Forward:
    """Scores pairs with a model as it is at the time, with gradients where torch is asked for them.

    Args:
        model: its mode decides on dropout.
        tokens: that the pairs come from.
        device: where the model is.
        precision: "fp32"; "bf16" for products in bf16, with the sums past the layers, norms and head in float32; or
            "auto" (see `resolved`).
    """

    def __init__(self, model: CrossEncoder, tokens: Tokens, device: torch.device, precision: str) -> None:
        self._model, self._tokens, self._device = model, tokens, device
        self.precision = resolved(precision, device)
        self._tried = False
        self._packed: _Packed | None = None

    @property
    def packs(self) -> bool:
        """Whether pairs are packed; found out at the first use."""
        if not self._tried:
            self._tried = True
            found = _packed_of(self._model)
            self._packed = found if found is not None and self._agrees(found) else None
        return self._packed is not None

    @property
    def takes_lanes(self) -> bool:
        """Whether several batches may go through at once, each by a thread of its own."""
        return self._device.type == "cpu"

    @property
    def has_own_graphs(self) -> bool:
        """Whether threads may each go there and back through the model, in graphs that share nothing but weights."""
        return self.takes_lanes and self.packs and isinstance(self._packed and self._packed.encoder, LikeBert)

    @property
    def trained(self) -> list[Tensor]:
        """The weights that want gradients."""
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def scoring(self) -> Iterator[Score]:
        """Within, the model's weights are taken as they are now; scores are (pairs,) in float32.

        The pairs of a call should be sorted by length, and be all that is to go through the model at once.
        """
        narrow = self.precision == "bf16"
        if self.packs and self._packed is not None:
            # the outer autocast keeps what those within cast, to its end
            with torch.autocast(self._device.type, enabled=False), self._scorer(self._packed) as score:
                yield score
            return

        def padded(pairs: Sequence[Pair]) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=narrow):
                return self._model(self._tokens.batch(pairs, self._device))  # type: ignore[no-any-return]

        yield padded

    def rehearse(self, tokens: int, longest: int) -> None:
        """Takes `tokens` tokens there and back, in pairs of `longest`: what a part of a step may come to at most."""
        settings: Any = self._model.encoder.config
        pair = self._example(min(longest, settings.max_position_embeddings - 4))
        with self.scoring() as score:
            score([pair] * max(1, tokens // len(pair.ids))).sum().backward()  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _scorer(self, packed: _Packed) -> Iterator[Score]:
        # other products on a CPU are MKL's, which builds none
        meets_onednn = self.takes_lanes and (self.precision == "bf16" or torch.is_inference_mode_enabled())
        step = _STEPS[self.precision] if meets_onednn else 1

        def score(pairs: Sequence[Pair]) -> Tensor:
            row = pack(filled(pairs, step), self._tokens.has_types, self._device)
            return packed.scores(row, weights)[: len(pairs)]

        with packed.encoder.prepared(torch.bfloat16 if self.precision == "bf16" else torch.float32) as weights:
            yield score

    @torch.inference_mode()
    def _agrees(self, packed: _Packed) -> bool:
        """Whether packed scores are those of padded pairs; says so where they are not, or where packing fails."""
        pairs = [self._example(length) for length in _CHECKED]
        modes = {module: module.training for module in self._model.modules()}
        self._model.eval()
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                expected = self._model(self._tokens.batch(pairs, self._device))
            with torch.autocast(self._device.type, enabled=False), self._scorer(packed) as score:
                found = score(pairs)
            apart = float((found - expected).abs().max())
            allowed = _TOLERANCE[self.precision] * max(1.0, float(expected.abs().max()))
            # a model whose weights are broken gives no score to compare; whoever asks for scores hears of it
            if apart <= allowed or not bool(expected.isfinite().all()):
                return True
            reason = f"packed scores are {apart:.2g} off"
        except (RuntimeError, AttributeError, TypeError, KeyError, ValueError) as error:  # another version's modules
            reason = f"{type(error).__name__}: {str(error)[:200]}"
        finally:
            for module, training in modes.items():
                module.training = training
        warnings.warn(f"pairs of this model are padded, which is slower: {reason}", stacklevel=2)
        return False

    def _example(self, length: int) -> Pair:
        """A pair of `length` tokens at most that the model can read, of any ids but padding's."""
        settings: Any = self._model.encoder.config
        longest = min(length, settings.max_position_embeddings - 4)
        ids = [1 + (17 * at + length) % (settings.vocab_size - 1) for at in range(longest)]
        return Pair(tuple(id_ if id_ != settings.pad_token_id else 0 for id_ in ids), min(longest, 1 + length // 3))


class _Packed:
    """A cross-encoder over packs: its encoder, and its pooling and head done pair by pair."""

    def __init__(self, model: CrossEncoder, encoder: Encoder, head: Head | None) -> None:
        self._model, self.encoder, self._head = model, encoder, head

    def scores(self, row: Pack, weights: Any) -> Tensor:
        """Scores (pairs,) in float32."""
        model: Any = self._model
        if self._head is None:
            return model.head(self._pooled(row, weights)).squeeze(-1)  # type: ignore[no-any-return]
        if getattr(model.encoder.config, "classifier_pooling", "cls") == "mean":  # ModernBERT's choice
            states = self.encoder.states(row, weights, firsts=False)
            pooled = _means(row, states, torch.ones_like(row.segments))
        else:
            pooled = self.encoder.states(row, weights, firsts=True)
        return self._head(model.encoder, pooled).squeeze(-1)

    def _pooled(self, row: Pack, weights: Any) -> Tensor:
        """(pairs, size), as the model's pooling has it."""
        states = self.encoder.states(row, weights, firsts=False)
        if self._model.pooling == "mean":
            return _means(row, states, torch.ones_like(row.segments))
        query = normalize(_means(row, states, 1 - row.segments), dim=1)
        return query * normalize(_means(row, states, row.segments), dim=1)


def _means(row: Pack, states: Tensor, wanted: Tensor) -> Tensor:
    """(pairs, size): the mean of each pair's states (tokens, size) where `wanted` (tokens,) is 1."""
    out = []
    for span, part, chosen in zip(row.spans, row.split(states), row.split(wanted), strict=True):
        weights = chosen.view(span.pairs, span.length, 1).to(states.dtype)
        total = (part.view(span.pairs, span.length, -1) * weights).sum(dim=1)
        out.append(total / weights.sum(dim=1).clamp(min=1))
    return torch.cat(out)


def means_by(base: Any) -> Callable[[Sequence[Pair]], Tensor]:
    """What gives (texts, size): the means of the last hidden states of texts that an encoder of BERT's family reads.

    It has the weights as they are now.
    """
    encoder = LikeBert(base)
    weights = encoder.prepare(torch.float32)

    def means(texts: Sequence[Pair]) -> Tensor:
        row = pack(filled(texts, _STEPS["fp32"]), has_types=False, device=base.device)
        return _means(row, encoder.states(row, weights, firsts=False), torch.ones_like(row.segments))[: len(texts)]

    return means


def _packed_of(model: CrossEncoder) -> _Packed | None:
    """The model over packs; None where its architecture is not known to allow it."""
    whole: Any = model.encoder
    if model.head is not None:
        encoder = encoder_of(whole)
        return _Packed(model, encoder, None) if encoder is not None else None
    head, base = classifier_head(whole), getattr(whole, whole.base_model_prefix, None)
    encoder = encoder_of(base) if base is not None else None
    return _Packed(model, encoder, head) if encoder is not None and head is not None else None
