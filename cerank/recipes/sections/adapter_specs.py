"""What `[stages.NAME.adapter]` of a recipe says: train a low-rank adapter of the model in place of all its weights."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from cerank.core.decode import help_text

Quantize: TypeAlias = Literal["none", "8bit", "4bit"]
ALL_LINEAR = "all-linear"  # as a target: every linear layer within the model's numbered layers


class AdapterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage's adapter. Defaults are those of sentence-transformers' examples: rank 64, alpha 128, dropout 0.1."""

    kind: Annotated[
        Literal["none", "lora"],
        help_text("lora: the stage trains low-rank updates of some matrices and the head; needs the extra `lora`"),
    ] = "none"
    rank: Annotated[int, msgspec.Meta(ge=1, le=4096), help_text("rank of an update")] = 64
    alpha: Annotated[
        float,
        msgspec.Meta(ge=0.0, le=10.0**6),
        help_text("an update counts alpha / rank times, with `rslora` alpha / sqrt(rank); 0 stands for twice the rank"),
    ] = 0.0
    dropout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0), help_text("of what an update reads")] = 0.1
    targets: Annotated[
        tuple[str, ...],
        help_text("names of the linear layers that get an update, or all-linear; default: by the model's family"),
    ] = ()
    dora: Annotated[bool, help_text("train the length of each row of a matrix apart from its direction (DoRA)")] = False
    rslora: Annotated[bool, help_text("scale an update by the square root of its rank (rsLoRA)")] = False
    modules_to_save: Annotated[
        tuple[str, ...], help_text("further modules that are trained as a whole; the head always is")
    ] = ()
    quantize: Annotated[
        Quantize,
        help_text(
            "hold the base in 8 or 4 bits while the adapter is trained, on a CUDA GPU; needs the extra `quantized`"
        ),
    ] = "none"
    start: Annotated[
        Literal["new", "continue"],
        help_text("new: a new adapter over the model so far; continue: train on the adapter of the stage before"),
    ] = "new"
    save: Annotated[
        Literal["both", "adapter", "merged"],
        help_text("what the stage hands on: the adapter, the whole model with the adapter merged, or both"),
    ] = "both"

    @property
    def is_lora(self) -> bool:
        """Return whether the stage trains an adapter."""
        return self.kind == "lora"

    @property
    def scale(self) -> float:
        """Return alpha, with its default put in."""
        return self.alpha or 2.0 * self.rank
