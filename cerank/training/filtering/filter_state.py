"""What a filter has learned and done so far, saved with each checkpoint: a resume chooses the same groups."""

from __future__ import annotations

from typing import Literal

import msgspec

from cerank.core.groups import Group
from cerank.recipes.sections.filter_specs import FORWARD_COST
from cerank.text.safe_text import counted
from cerank.training.filtering.token_predictor import TokenPredictor

Phase = Literal["plain", "by loss", "by prediction"]


class ChoiceCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the groups that a stage saw. "Easy" are those whose loss is below the threshold."""

    seen: int = 0
    scored: int = 0  # went forward without a gradient, to choose among them
    easy_by_loss: int = 0
    easy_by_prediction: int = 0
    kept_easy: int = 0  # of both, those that were chosen all the same
    chosen: int = 0  # put into the queue, or trained on at once
    trained: int = 0  # went forward and backward in an update
    updates: int = 0

    @property
    def cost_share(self) -> float:
        """Return the passes made as a share of those of training on every group that was seen."""
        return (self.trained + FORWARD_COST * self.scored) / max(1, self.seen)


class FilterState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a filter after a step."""

    phase: Phase = "plain"
    losses: tuple[float, ...] = ()  # of the newest groups of the first steps, at most `window`
    threshold: float = 0.0  # frozen when those steps are over
    log_losses: tuple[float, ...] = ()  # the predictor's, on the newest groups, each before it learned from them
    predictor: TokenPredictor | None = None  # None: there is none to learn
    queue: tuple[Group, ...] = ()  # chosen, and not trained on yet
    counts: ChoiceCounts = ChoiceCounts()
    by_loss_from: int = 0  # first step of that phase; 0: it was not reached
    by_prediction_from: int = 0


class FilterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage's filter came to; stored with the stage's model."""

    kind: str
    counts: ChoiceCounts
    threshold: float
    by_loss_from: int
    by_prediction_from: int
    predictor_log_loss: float | None  # mean over the newest groups; None where no predictor learned
    unused: int  # chosen, and not trained on because the stage stopped early

    @classmethod
    def of(cls, kind: str, state: FilterState) -> FilterSummary:
        """Return the summary of a filter at the end of its stage."""
        newest = state.log_losses
        return cls(
            kind=kind,
            counts=state.counts,
            threshold=state.threshold,
            by_loss_from=state.by_loss_from,
            by_prediction_from=state.by_prediction_from,
            predictor_log_loss=sum(newest) / len(newest) if newest else None,
            unused=len(state.queue),
        )

    @property
    def pays(self) -> bool:
        """Return whether fewer passes were made than training on every group takes."""
        return self.counts.cost_share < 1.0

    def __str__(self) -> str:
        counts = self.counts
        text = (
            f"of {counted(counts.seen, 'group')} {counts.trained} were trained on, in "
            f"{counted(counts.updates, 'update')}, and {counts.scored} went forward to choose them"
        )
        text += f"; {self._phases()}" if self.kind == "multistage" else ""
        text += f"; {self.unused} chosen ones were left when the stage stopped early" if self.unused else ""
        text += (
            f"; {counts.cost_share:.0%} of the passes of training on all, a backward pass counted as two forward ones"
        )
        return text + ("" if self.pays else ": the filter does not pay")

    def _phases(self) -> str:
        """Return which phases there were."""
        if not self.by_loss_from:
            return "the stage ended before any was left out"
        text = f"from step {self.by_loss_from} on by their loss (threshold {self.threshold:.4g})"
        if self.by_prediction_from:
            text += f", from step {self.by_prediction_from} on by the predictor"
        elif self.predictor_log_loss is not None:
            text += f"; the predictor never took over: its log-loss was {self.predictor_log_loss:.2f} at the end"
        return f"{text}; {self.counts.kept_easy} easy ones kept"
