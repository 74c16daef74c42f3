"""What `[stages.NAME.filter]` of a recipe says: train on a part of the groups, chosen by their loss or at random.

Source of the method and of its numbers: Ouyang et al., "Efficient NLP Model Finetuning via Multistage Data Filtering",
IJCAI 2023 (arXiv 2207.14386).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text

_Groups = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]

# Of the groups that are seen after the first steps, how many a dry run assumes to be trained on.
ASSUMED_SHARE = 0.5
# A backward pass takes about as long as two forward passes, so that a forward pass alone is a third of a training pass.
FORWARD_COST = 1 / 3


class FilterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which groups a stage trains on. Its steps go through the data as ever, and fewer of them make an update."""

    kind: Annotated[
        Literal["none", "multistage", "random"],
        help_text("multistage: all groups at first, then those of a large loss; random: an equal share throughout"),
    ] = "none"
    plain: Annotated[
        _Share, help_text("multistage: share of the steps, from the first on, that train on every group")
    ] = 0.1
    window: Annotated[
        _Groups, help_text("multistage: the threshold is the mean loss of the last so many groups of these steps")
    ] = 128
    floor: Annotated[
        _Share, help_text("multistage: of the groups below the threshold, the share that is trained on all the same")
    ] = 0.05
    predictor_loss: Annotated[
        float,
        msgspec.Meta(ge=0.0, le=100.0),
        help_text("multistage: mean log-loss at which the predictor replaces the forward pass; 0 never lets it"),
    ] = 0.5
    predictor_window: Annotated[_Groups, help_text("multistage: groups over which that mean is taken")] = 128
    predictor_reads: Annotated[
        Literal["query", "group"],
        help_text("multistage: which tokens the predictor looks at: those of the query, or of its documents, too"),
    ] = "query"
    share: Annotated[
        float, msgspec.Meta(gt=0.0, lt=1.0), help_text("random: share of the groups that is trained on")
    ] = 0.5

    @property
    def is_on(self) -> bool:
        """Return whether the stage leaves groups out."""
        return self.kind != "none"

    def plain_steps(self, steps: int) -> int:
        """Return how many of a stage's steps train on every group."""
        return math.ceil(self.plain * steps) if self.kind == "multistage" else 0


def filter_mistakes(at: str, spec: FilterSpec, steps: int, groups_per_step: int) -> list[str]:
    """Return what contradicts itself in a stage's filter, as `key.path: what`.

    Args:
        at: path of the filter's table.
        spec: the filter.
        steps: steps of the stage; 0 where they are not known yet.
        groups_per_step: groups of a step.
    """
    of_other_kinds = {"none": _KEYS, "random": _KEYS - {"share"}, "multistage": frozenset({"share"})}[spec.kind]
    given = [key for key in sorted(of_other_kinds) if getattr(spec, key) != getattr(FilterSpec(), key)]
    if given:
        fitting = "random" if given == ["share"] else "multistage"
        return [f'{at}.{key}: does nothing with kind = "{spec.kind}"; set kind = "{fitting}"' for key in given]
    if spec.kind != "multistage":
        return []
    if not spec.plain:
        return [f"{at}.plain: 0 leaves no losses from which the threshold could be taken; 0.1 is usual"]
    seen = spec.plain_steps(steps) * groups_per_step
    if steps and spec.plain_steps(steps) >= steps:
        return [f"{at}.plain: all {steps} steps of the stage train on every group; give less, or more steps"]
    if steps and seen < spec.window:
        return [
            f"{at}.plain: {spec.plain_steps(steps)} of {steps} steps have {seen} groups, and the threshold is the mean "
            f"loss of {spec.window}; raise it to {math.ceil(100 * spec.window / groups_per_step / steps) / 100:g}, or "
            "lower window"
        ]
    return []


_KEYS = frozenset(FilterSpec.__struct_fields__) - {"kind"}
