"""Compute scores of pairs by the fastest exact way: packed if the model allows it, padded if not.

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

from cerank.errors import UsageError
from cerank.kernels.memory import is_out_of_memory
from cerank.kernels.packed_encoders import BertLikeEncoder, Head, PackedEncoder, classifier_head, packed_encoder
from cerank.kernels.packing import Pack, pack, pad_row
from cerank.kernels.processor import bf16_is_faster
from cerank.machine.gpu_properties import BF16_CAPABILITY, FP16_CAPABILITY
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.shared_prefix import SharedPrefixModel
from cerank.tokenization.tokens import Pair, PairTokenizer, batches_by_length, even_batches

Score = Callable[[Sequence[Pair]], Tensor]

CPU_TOKEN_BUDGET = 2048  # tokens a batch on a CPU: small enough to stay in cache
GPU_TOKEN_BUDGET = 65_536
# oneDNN builds a kernel for each number of rows it meets (5 ms and half a megabyte in bf16, a tenth of that in
# float32), so the number of tokens is rounded up to a multiple of this
_ROW_MULTIPLE = {"fp32": 8, "bf16": 32}
_PRODUCT_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CHECKED_LENGTHS = (3, 11, 11, 40, 150)  # tokens of pairs that packing is tried on; 150 exceeds ModernBERT's window
# largest difference of packed and padded scores, relative to the largest score, or to 1
_TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 5e-2}


def token_budget(device: torch.device) -> int:
    """Return how many tokens go through a model at once where no gradient is needed."""
    return CPU_TOKEN_BUDGET if device.type == "cpu" else GPU_TOKEN_BUDGET


def resolve_precision(precision: str | None, device: torch.device, *, trains: bool = True) -> str:
    """Return the precision of products: as asked for, or for "auto" bf16 where the device multiplies it faster.

    None is "auto" on a GPU and "fp32" elsewhere. A GPU without bf16 has fp16: "auto" takes it where nothing is trained,
    because gradients would need a scale of their own in it.

    Args:
        precision: what a recipe or a command asks for.
        device: the device.
        trains: whether gradients are computed, too.

    Raises:
        UsageError: the device only emulates this precision, or does not have it.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        has_tensor_cores = capability >= BF16_CAPABILITY  # for bf16 and tf32
        if precision in {None, "auto"}:
            narrow = "fp32" if trains or capability < FP16_CAPABILITY else "fp16"
            return "bf16" if has_tensor_cores else narrow
        if precision in {"bf16", "tf32"} and not has_tensor_cores:
            what = f"{torch.cuda.get_device_name(device)} has no {precision}, and emulates it slower than fp32"
            raise UsageError(
                what, where="precision", hint="fp32; for re-ranking alone, fp16", code="precision-not-supported"
            )
        return str(precision)
    if precision in {"fp16", "tf32"}:
        raise UsageError(
            f"{precision} is for NVIDIA's GPUs, not for {device.type}",
            where="precision",
            hint="auto",
            code="precision-not-supported",
        )
    if precision != "auto":
        return precision or "fp32"
    return "bf16" if device.type == "cpu" and bf16_is_faster() else "fp32"


class ForwardPass:
    """Scores pairs with the weights a model has at the time, with gradients where torch is asked for them.

    Args:
        model: the cross-encoder; in training mode it applies dropout.
        tokens: the tokenizer that the pairs come from.
        device: device that the model is on.
        precision: "fp32"; "bf16" for matrix products in bf16, with residual sums, norms and head in float32; "auto"
            (see `resolve_precision`); on a GPU also "tf32", and without gradients "fp16".
    """

    def __init__(self, model: CrossEncoder, tokens: PairTokenizer, device: torch.device, precision: str | None) -> None:
        self.model, self.tokens, self._device = model, tokens, device
        self.precision = resolve_precision(precision, device)
        self._product_type = _PRODUCT_TYPES[self.precision]
        self._tried = False
        self._packed: PackedModel | SharedPrefixModel | None = None

    @property
    def is_packed(self) -> bool:
        """Return whether pairs are packed; the first call tries it."""
        if not self._tried:
            packed = packed_model(self.model) if self.model.lockstep is None else None
            self._packed = packed if packed is not None and self._agrees(packed) else None
            self._tried = True
        return self._packed is not None

    def batches(self, pairs: Sequence[Pair], budget: int) -> list[list[int]]:
        """Return batches of places of pairs that go through the model at once, of about `budget` tokens each.

        The cut depends on the pairs alone, never on the number of threads.
        """
        lengths = [len(pair.ids) for pair in pairs]
        if self.is_packed and isinstance(self._packed, SharedPrefixModel):
            return self._packed.batches(pairs, budget)
        make_batches = even_batches if self.supports_threads and self.is_packed else batches_by_length
        return make_batches(lengths, budget)

    @property
    def supports_threads(self) -> bool:
        """Return whether several batches may go through at once, each in a thread of its own."""
        return self._device.type == "cpu" and self.model.lockstep is None

    @property
    def supports_threaded_backward(self) -> bool:
        """Return whether threads may run forward and backward at once, in graphs that share nothing but weights."""
        return (
            self.supports_threads
            and self.is_packed
            and isinstance(self._packed and self._packed.encoder, BertLikeEncoder)
        )

    @property
    def trained_weights(self) -> list[Tensor]:
        """Return the weights that are trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def scoring(self) -> Iterator[Score]:
        """Yield a function from pairs to scores (pairs,) in float32, with the weights as they are on entry.

        The pairs of a call should be sorted by length, and be all that is to go through the model at once.
        """
        self._set_float32_products()
        if self.is_packed and self._packed is not None:
            # one outer autocast: the weights that are cast within it are kept until it ends
            with torch.autocast(self._device.type, enabled=False), self._scorer(self._packed) as score:
                yield score
            return

        def padded(pairs: Sequence[Pair]) -> Tensor:
            if self.model.lockstep is not None and not self.model.training:
                self.model.lockstep.goes_on(has_work=True)
            with self._autocast():
                scores: Tensor = self.model(self.tokens.batch(pairs, self._device))
                return scores

        yield padded

    def wait_for_others(self) -> None:
        """Return once no process has pairs left to score, where several compute the model together; else at once.

        To be called in evaluation mode by each of them, when it has scored its own.
        """
        lockstep = self.model.lockstep
        while lockstep is not None and lockstep.goes_on(has_work=False):
            self.model(self.tokens.batch([self.shortest_pair()], self._device))

    def shortest_pair(self) -> Pair:
        """Return a pair that costs next to nothing, for a process that has no work in a pass of all."""
        return self._example(3)

    def without_gradients(self) -> Any:
        """Return the context in which scores are computed that nothing is learned from."""
        # torch's fully_shard keeps the weights that it gathers: made in inference mode they could not be trained
        return torch.inference_mode() if self.model.lockstep is None else torch.no_grad()

    def probe_memory(self, tokens: int, longest: int) -> None:
        """Run `tokens` tokens forward and backward, in pairs of `longest`: the most that a microbatch may need."""
        settings: Any = self.model.encoder.config
        pair = self._example(min(longest, settings.max_position_embeddings - 4))
        with self.scoring() as score:
            score([pair] * max(1, tokens // len(pair.ids))).sum().backward()  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _scorer(self, packed: PackedModel | SharedPrefixModel) -> Iterator[Score]:
        # other products on a CPU are MKL's, which builds no such kernels
        uses_onednn = self.supports_threads and (self.precision == "bf16" or torch.is_inference_mode_enabled())
        step = _ROW_MULTIPLE[self.precision] if uses_onednn else 1

        def score(pairs: Sequence[Pair]) -> Tensor:
            if isinstance(packed, SharedPrefixModel):
                return packed.scores(packed.row(pairs, self._device), weights)
            row = pack(pad_row(pairs, step), self.tokens.has_types, self._device)
            return packed.scores(row, weights)[: len(pairs)]

        with packed.encoder.prepared(self._product_type) as weights:
            yield score

    def _set_float32_products(self) -> None:
        """Set how a GPU computes products of float32: it is a setting of the process, and another model may differ."""
        if self._device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"

    def _autocast(self) -> torch.autocast:
        """Return the context in which a padded model computes products in the precision."""
        enabled = self._product_type is not torch.float32
        keeps = self.model.lockstep is None  # else what is cast would outlive the layer whose weights are gathered
        dtype = self._product_type if enabled else None
        return torch.autocast(self._device.type, dtype, enabled=enabled, cache_enabled=keeps)

    @torch.inference_mode()
    def _agrees(self, packed: PackedModel | SharedPrefixModel) -> bool:
        """Return whether packed scores are those of padded pairs; warn where they are not, or where packing fails.

        Raises:
            RuntimeError: the device has too little memory for it, or failed, which says nothing of packing: taken for a
                failure of packing it would change how the whole stage computes.
        """
        self._set_float32_products()
        pairs = [self._example(length) for length in _CHECKED_LENGTHS]
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with self._autocast():
                expected = self.model(self.tokens.batch(pairs, self._device))
            with torch.autocast(self._device.type, enabled=False), self._scorer(packed) as score:
                scores = score(pairs)
            difference = float((scores - expected).abs().max())
            allowed = _TOLERANCE[self.precision] * max(1.0, float(expected.abs().max()))
            # broken weights give no score to compare; the caller that asks for scores gets an error
            if difference <= allowed or not bool(expected.isfinite().all()):
                return True
            reason = f"packed scores are {difference:.2g} off"
        except (RuntimeError, AttributeError, TypeError, KeyError, ValueError, ImportError) as error:
            if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                raise
            reason = f"{type(error).__name__}: {str(error)[:200]}"  # such as another transformers
        finally:
            for module, training in modes.items():
                module.training = training
        warnings.warn(f"pairs of this model are padded, which is slower: {reason}", stacklevel=2)
        return False

    def _example(self, length: int) -> Pair:
        """Return a pair of at most `length` tokens that the model can read, of any ids but padding's."""
        settings: Any = self.model.encoder.config
        longest = min(length, settings.max_position_embeddings - 4)
        ids = [1 + (17 * at + length) % (settings.vocab_size - 1) for at in range(longest)]
        return Pair(tuple(id_ if id_ != settings.pad_token_id else 0 for id_ in ids), min(longest, 1 + length // 3))


class PackedModel:
    """A cross-encoder over packed pairs: its encoder, with pooling and head applied pair by pair."""

    def __init__(self, model: CrossEncoder, encoder: PackedEncoder, head: Head | None) -> None:
        self.model, self.encoder, self._head = model, encoder, head

    def scores(self, row: Pack, weights: Any) -> Tensor:
        """Return scores (pairs,) in float32."""
        model: Any = self.model
        if self._head is None:
            scores: Tensor = model.head(self._pooled(row, weights))
            return scores.squeeze(-1)
        if getattr(model.encoder.config, "classifier_pooling", "cls") == "mean":  # ModernBERT's choice
            states = self.encoder.states(row, weights, firsts=False)
            pooled = span_means(row, states, torch.ones_like(row.segments))
        else:
            pooled = self.encoder.states(row, weights, firsts=True)
        of_head: Tensor = model.score_of_logits(self._head(model.encoder, pooled).float())
        return of_head

    def _pooled(self, row: Pack, weights: Any) -> Tensor:
        """Return (pairs, hidden size), pooled as the model's pooling says."""
        if self.model.pooling == "cls":
            return self.encoder.states(row, weights, firsts=True)
        states = self.encoder.states(row, weights, firsts=False)
        if self.model.pooling == "mean":
            return span_means(row, states, torch.ones_like(row.segments))
        query = normalize(span_means(row, states, 1 - row.segments), dim=1)
        return query * normalize(span_means(row, states, row.segments), dim=1)


def span_means(row: Pack, states: Tensor, mask: Tensor) -> Tensor:
    """Return (pairs, size): the mean of each pair's states (tokens, size) where `mask` (tokens,) is 1."""
    if states.device.type != "cpu":
        return segment_means(row, states, mask)
    out = []
    for span, part, chosen in zip(row.spans, row.split(states), row.split(mask), strict=True):
        weights = chosen.view(span.pairs, span.length, 1).to(states.dtype)
        total = (part.view(span.pairs, span.length, -1) * weights).sum(dim=1)
        out.append(total / weights.sum(dim=1).clamp(min=1))
    return torch.cat(out)


def segment_means(row: Pack, states: Tensor, mask: Tensor) -> Tensor:
    """Return what `span_means` returns, by one sum over all pairs: on a GPU each span would be kernels of its own.

    Each sum is made by one thread in the order of the tokens, forward and backward, so its bits stay the same.
    """
    chosen = mask.unsqueeze(1).to(states.dtype)
    edges = row.edges.long()
    total, count = (
        torch.segment_reduce(values, "sum", offsets=edges, axis=0, unsafe=True)  # unsafe: it does not wait to check
        for values in (states * chosen, chosen)
    )
    return total / count.clamp(min=1)


def mean_pooler(base: Any) -> Callable[[Sequence[Pair]], Tensor]:
    """Return a function from texts to the means (texts, size) of their last hidden states.

    It has the weights as they are now.
    """
    encoder = BertLikeEncoder(base)
    weights = encoder.prepare(torch.float32)

    def means(texts: Sequence[Pair]) -> Tensor:
        row = pack(pad_row(texts, _ROW_MULTIPLE["fp32"]), has_types=False, device=base.device)
        return span_means(row, encoder.states(row, weights, firsts=False), torch.ones_like(row.segments))[: len(texts)]

    return means


def packed_model(model: CrossEncoder) -> PackedModel | SharedPrefixModel | None:
    """Return the model over packed pairs; None where its architecture is not known to allow it."""
    full: Any = model.encoder
    if model.pooling == "answer":
        own: SharedPrefixModel | None = model.make_packed()
        return own
    if model.head is not None:
        encoder = packed_encoder(full)
        return PackedModel(model, encoder, None) if encoder is not None else None
    head, base = classifier_head(full), getattr(full, full.base_model_prefix, None)
    encoder = packed_encoder(base) if base is not None else None
    return PackedModel(model, encoder, head) if encoder is not None and head is not None else None
