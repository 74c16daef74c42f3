"""What `[stages.NAME.curriculum]` of a recipe says: in which order a stage sees the queries that it samples."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text


class CurriculumSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The order of a stage's queries. Which are sampled, and how often, is the same in any order."""

    kind: Annotated[
        Literal["none", "confident-first"],
        help_text("confident-first: the queries of the first steps by the teacher's confidence, the surest first"),
    ] = "none"
    by: Annotated[
        Literal["margin", "spread"],
        help_text("confidence: the score of a list's best document less the second's, or the deviation of its scores"),
    ] = "margin"
    share: Annotated[
        float,
        msgspec.Meta(gt=0.0, le=1.0),
        help_text("of the steps, from the first on, whose queries are ordered; later ones are in random order"),
    ] = 0.5

    @property
    def is_on(self) -> bool:
        """Return whether the stage orders queries."""
        return self.kind != "none"

    def ordered_steps(self, steps: int) -> int:
        """Return how many of a stage's steps have their queries in order."""
        return round(self.share * steps) if self.is_on else 0


def curriculum_mistakes(at: str, spec: CurriculumSpec, teachers: tuple[str, ...]) -> list[str]:
    """Return what contradicts itself in a stage's curriculum, as `key.path: what`.

    Args:
        at: path of its table.
        spec: the curriculum.
        teachers: teachers that the stage learns from.
    """
    if not spec.is_on:
        return [
            f'{at}.{key}: does nothing with kind = "none"; set kind = "confident-first"'
            for key in ("by", "share")
            if getattr(spec, key) != getattr(CurriculumSpec(), key)
        ]
    if not teachers:
        return [f"{at}.kind: needs a teacher whose confidence orders the queries; this stage learns from labels alone"]
    if teachers[0].endswith(".json"):
        return [f"{at}.kind: needs a teacher's scores, and permutations have none; give a TREC run with scores"]
    return []
