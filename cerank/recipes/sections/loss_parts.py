"""What `[[stages.NAME.losses]]` says: losses whose weighted sum a stage trains, each with its targets and options.

Invariant: pure data; what each loss can learn from is known to recipes/loss_specs.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text

_Above0 = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]
_From0 = Annotated[float, msgspec.Meta(ge=0.0, le=10.0**6)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
LambdaScheme = Literal["ndcg-loss2++", "ndcg-loss2", "lambdarank", "ndcg-loss1", "none"]


class LossPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the losses of a stage."""

    name: Annotated[str, help_text("see `cerank recipes losses`")]
    weight: Annotated[_Above0, help_text("factor of this loss in the sum that is trained")] = 1.0
    teacher: Annotated[
        str, help_text('whose ranking gives the targets, as in the stage\'s key of that name; "": the labels do')
    ] = ""
    targets: Annotated[
        Literal["auto", "ranks", "scores"],
        help_text("which of the teacher's outputs is the target; auto: the one that the loss prefers"),
    ] = "auto"
    mean_over: Annotated[
        Literal["queries", "pairs"], help_text("this loss's mean over a step: over its queries, or all their pairs")
    ] = "queries"
    sets: Annotated[
        tuple[str, ...],
        help_text("of a mixture of training sets: those whose queries this loss is for; none: all of them"),
    ] = ()

    # options of a loss; which loss has which: `cerank recipes losses`
    temperature: Annotated[
        _Above0 | None, help_text("divides scores (of kl: the teacher's, too); of ApproxNDCG: of its sigmoid")
    ] = None
    margin: Annotated[_From0 | None, help_text("by which a better document shall lead (hinge)")] = None
    scheme: Annotated[LambdaScheme | None, help_text("how LambdaLoss weights pairs")] = None
    cutoff: Annotated[_Count | None, help_text("pairs count that reach the first ranks, to this one; default: all")] = (
        None
    )
    sigma: Annotated[_Above0 | None, help_text("steepness of LambdaLoss's sigmoid")] = None
    mu: Annotated[_From0 | None, help_text("weight of NDCG-Loss2 in NDCG-Loss2++")] = None
    positive_weight: Annotated[_Above0 | None, help_text("factor of a positive's loss (bce)")] = None
    sampling_rate: Annotated[
        Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None,
        help_text("sampled share of all possible negatives (gbce)"),
    ] = None
    calibration: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        help_text("gbce's t: 0 is bce, 1 undoes the sampling in full"),
    ] = None
    levels: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=100)] | None, help_text("grades of the labels, 0 among them (ordinal)")
    ] = None
    spacing: Annotated[_Above0 | None, help_text("distance of the scores at which grades change (ordinal)")] = None

    def options(self) -> dict[str, float | int | str]:
        """Return the options of the loss that are given, by name."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in values.items() if value is not None}


OPTIONS = (
    "temperature",
    "margin",
    "scheme",
    "cutoff",
    "sigma",
    "mu",
    "positive_weight",
    "sampling_rate",
    "calibration",
    "levels",
    "spacing",
)


def part_names(parts: Sequence[LossPart]) -> tuple[str, ...]:
    """Return what records and screens call each loss of a stage: its name, with what it learns from if that is needed.

    >>> part_names([LossPart(name="lce"), LossPart(name="kl", teacher="a.run"), LossPart(name="kl", teacher="mine")])
    ('lce', 'kl by a.run', 'kl by mine')
    >>> part_names([LossPart(name="lce", sets=("./ours[:80%]",)), LossPart(name="bce", sets=("theirs",))])
    ('lce on ours[:80%]', 'bce on theirs')
    """
    counts = Counter((part.name, part.sets) for part in parts)
    sources = [PurePath(part.teacher).name if part.teacher else "labels" for part in parts]
    names = [
        part.name if counts[part.name, part.sets] == 1 else f"{part.name} by {source}"
        for part, source in zip(parts, sources, strict=True)
    ]
    names = [
        f"{name} on {' + '.join(PurePath(entry).name for entry in part.sets)}" if part.sets else name
        for name, part in zip(names, parts, strict=True)
    ]
    alike = Counter(names)  # two files of one name in different folders
    return tuple(
        name if alike[name] == 1 else f"{part.name} by {part.teacher}{f' on {part.sets}' if part.sets else ''}"
        for name, part in zip(names, parts, strict=True)
    )
