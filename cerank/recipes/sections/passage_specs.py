"""What `[passages]` of a recipe, or of one of its stages, says: score a long document by its passages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text
from cerank.core.passage_scores import Aggregation

CHOSEN_UNTIL_THEN: Aggregation = "MaxP"  # what validates and trains while the aggregation is not chosen yet
LEAST_SPECIAL_TOKENS = 3  # that a pair of an encoder holds: [CLS], and [SEP] twice


class PassageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How documents are cut into passages, and how the scores of passages become the score of a document."""

    aggregation: Annotated[
        Literal["none", "MaxP", "FirstP", "SumP", "MeanP", "TopMeanP", "choose"],
        help_text(
            "score of a document: that of its best or first passage, a sum or mean; choose: on validation; "
            "none: no passages, the document is read from its beginning"
        ),
    ] = "none"
    max_passages: Annotated[
        int, msgspec.Meta(ge=1, le=10_000), help_text("passages scored of a document, from its beginning")
    ] = 8
    length: Annotated[int, msgspec.Meta(ge=1, le=10**6), help_text("tokens of a passage")] = 160
    stride: Annotated[
        int, msgspec.Meta(ge=1, le=10**6), help_text("tokens from the start of a passage to that of the next")
    ] = 80
    title: Annotated[
        int,
        msgspec.Meta(ge=0, le=10**6),
        help_text("tokens of the title repeated in front of each passage after the first; 0 repeats none"),
    ] = 0
    top: Annotated[int, msgspec.Meta(ge=1, le=10_000), help_text("passages of which TopMeanP takes the mean")] = 3
    train_on: Annotated[
        Literal["best", "first", "all"],
        help_text(
            "what training reads of each document: the passage that matches the query best by BM25, the first, or all "
            "of them, with the aggregation inside the loss"
        ),
    ] = "best"

    @property
    def has_passages(self) -> bool:
        """Return whether documents are cut into passages."""
        return self.aggregation != "none"

    @property
    def first_aggregation(self) -> Aggregation:
        """Return the aggregation that training and its validations use; MaxP where it is chosen afterwards."""
        return CHOSEN_UNTIL_THEN if self.aggregation in {"choose", "none"} else self.aggregation  # type: ignore[return-value]


def passage_mistakes(spec: PassageSpec, at: str) -> Iterator[str]:
    """Yield what contradicts itself in a table of passages at the key path `at`."""
    if not spec.has_passages:
        if spec != PassageSpec():
            yield f'{at}.aggregation: "none", and the table sets other keys; set aggregation = "MaxP", or take them out'
        return
    if spec.stride > spec.length:
        yield (
            f"{at}.stride: {spec.stride} is more than the length of {spec.length}, so that no passage would hold what "
            f"lies between two of them; give up to {spec.length}"
        )


def room_mistakes(spec: PassageSpec, at: str, *, max_length: int, max_query_length: int) -> Iterator[str]:
    """Yield what does not fit: a passage beside the longest query, in the tokens that a stage reads of a pair."""
    room = max_length - max_query_length - LEAST_SPECIAL_TOKENS
    if spec.has_passages and spec.length + spec.title > room:
        title = f" with {spec.title} of the title" if spec.title else ""
        yield (
            f"{at}.length: {spec.length} tokens{title} do not fit: max_length = {max_length} leaves {max(0, room)} "
            f"beside a query of max_query_length = {max_query_length}; raise max_length or lower one of the others"
        )
