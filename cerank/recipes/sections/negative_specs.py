"""What a recipe says of a stage's negatives: sources that are mixed by share, and filters against false negatives.

`[[stages.NAME.negative_sources]]` is one source; `[stages.NAME.false_negatives]` are the filters.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text
from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.registry import nearest

_Rank = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
_Score = Annotated[float, msgspec.Meta(ge=-(10.0**6), le=10.0**6)]


class NegativeSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the places that a stage's negatives come from, and its share of them."""

    source: Annotated[
        Literal["first-stage", "mined", "collection", "in-batch"],
        help_text("a first stage's candidates, a mined file, any documents, or those of the step's other queries"),
    ]
    share: Annotated[
        float,
        msgspec.Meta(ge=0.0, le=10.0**6),
        help_text("share of a group's negatives, relative to the other sources; 0 only fills up what others lack"),
    ] = 1.0
    run: Annotated[
        str, help_text('mined: the file; first-stage: "bm25", a run of the dataset, or a file; "" is the stage\'s own')
    ] = ""
    ranks: Annotated[
        tuple[_Rank, _Rank] | None, help_text("ranks to sample from, both included; default: the stage's window")
    ] = None
    sampler: Annotated[str, help_text('how it is sampled; "" takes the stage\'s `negatives`')] = ""

    @property
    def is_ranked(self) -> bool:
        """Return whether the source is a ranking, which has ranks."""
        return self.source in {"first-stage", "mined"}

    def __str__(self) -> str:
        run = f" {self.run}" if self.run else ""
        return f"{self.source}{run}" + (f" {self.ranks[0]}-{self.ranks[1]}" if self.ranks else "")


class FalseNegativeFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filters that drop candidates which may be relevant though nobody judged them so; none by default."""

    scores: Annotated[
        str, help_text("who scores: a scored TREC run, a run of the dataset, or a cross-encoder in [teachers]")
    ] = ""
    absolute_margin: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=10.0**6)] | None,
        help_text("drops what scores above the positive's score minus this"),
    ] = None
    relative_margin: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        help_text("drops what scores above the positive's score minus this share of it; 0.05 keeps up to 95 %"),
    ] = None
    max_score: Annotated[_Score | None, help_text("drops what scores above this")] = None
    top_p: Annotated[
        Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] | None,
        help_text("drops the best candidates that hold this share of the softmax over positives and candidates"),
    ] = None
    near_duplicates: Annotated[
        Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None,
        help_text("drops texts that share this part of their words with a positive (Jaccard); 1: the same words"),
    ] = None
    positive: Annotated[
        Literal["lowest", "highest"],
        help_text("whose score margins are taken from, if there are several"),
    ] = "lowest"
    unscored: Annotated[
        Literal["keep", "drop"], help_text("candidates without a score, and candidates of positives without one")
    ] = "keep"

    @property
    def needs_scores(self) -> bool:
        """Return whether a filter looks at scores."""
        return any(
            limit is not None for limit in (self.absolute_margin, self.relative_margin, self.max_score, self.top_p)
        )

    @property
    def is_used(self) -> bool:
        """Return whether the stage drops any candidates by a filter."""
        return self.needs_scores or self.near_duplicates is not None


def source_mistakes(at: str, sources: tuple[NegativeSource, ...], groups_per_step: int) -> list[str]:
    """Return an error for each source that contradicts itself or the others, as `key.path: what`."""
    mistakes = []
    if sources and not sum(source.share for source in sources):
        mistakes.append(f"{at}: the shares sum to 0; give one source a share above 0")
    if sources and all(source.source == "in-batch" for source in sources):
        what = "in-batch alone: a step's other queries may have nothing; add a source that fills a group then"
        mistakes.append(f"{at}: {what}")
    if groups_per_step < 2 and any(source.source == "in-batch" for source in sources):
        mistakes.append(f"{at}: in-batch needs groups_per_step of 2 or more, or there are no other queries")
    for number, source in enumerate(sources):
        here = f"{at}[{number}]"
        if source.source == "mined" and not source.run:
            mistakes.append(f"{here}.run: missing; name the file that `cerank data mine` wrote")
        if source.ranks and source.ranks[0] > source.ranks[1]:
            mistakes.append(f"{here}.ranks: start at rank {source.ranks[0]} and end before it, at {source.ranks[1]}")
        if source.sampler and source.sampler not in NEGATIVE_SAMPLERS:
            hint = nearest(source.sampler, NEGATIVE_SAMPLERS)
            mistakes.append(f"{here}.sampler: no sampler of negatives is called '{source.sampler}'; {hint}")
        if not source.is_ranked:
            given = [key for key in ("run", "ranks", "sampler") if getattr(source, key)]
            mistakes += [f'{here}.{key}: source "{source.source}" has no ranking; leave it out' for key in given]
        places = [(other.source, other.run, other.ranks) for other in sources[:number]]
        if (source.source, source.run, source.ranks) in places:
            mistakes.append(f"{here}: the same source appears twice; add up the shares")
    return mistakes


def false_negative_mistakes(at: str, filters: FalseNegativeFilters) -> list[str]:
    """Return an error for each filter that lacks what it needs, as `key.path: what`."""
    if filters.needs_scores and not filters.scores:
        return [f"{at}.scores: missing; name a scored run of a re-ranker, or a cross-encoder in [teachers]"]
    if filters.scores and not filters.needs_scores:
        return [f"{at}.scores: no filter uses them; set absolute_margin, relative_margin, max_score or top_p"]
    if filters != FalseNegativeFilters() and not filters.is_used:
        return [f"{at}: no filter is set; give absolute_margin, relative_margin, max_score, top_p or near_duplicates"]
    return []
