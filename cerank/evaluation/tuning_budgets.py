"""How much tuning two systems had before they were compared, as notes under the verdict.

A verdict counts test queries and seeds; that one side was the best of 24 settings and the other was never tuned is in
none of its figures (Dodge et al., EMNLP 2019, "Show Your Work").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.evaluation.diagnostics import Note

TUNING_NOTES = ("tuned", "unequal tuning", "tuned on test")  # kinds; their texts name both systems


class SystemTuning(msgspec.Struct, frozen=True, kw_only=True):
    """The search that a system's settings come from."""

    trials: int = 0  # 0 for a trained system that no sweep tuned, as far as its recipe says
    pairs: int = 0  # that its trials were trained on
    sweep: str = ""
    method: str = ""
    measure: str = ""  # on validation
    validation: str = ""  # dataset of the validation queries, named as a condition names it
    by_fold: bool = False  # each fold was tuned by itself, by so many trials
    changed: tuple[str, ...] = ()  # settings that are no longer those which the sweep found


def notes(
    left: tuple[str, SystemTuning | None], right: tuple[str, SystemTuning | None], dataset: str
) -> tuple[Note, ...]:
    """Return what to say of the tuning of two systems; nothing where neither was tuned.

    Args:
        left: label and tuning; None for a file, and for a system that is not trained, such as BM25.
        right: likewise.
        dataset: test set, named as a condition names it.
    """
    from cerank.evaluation.diagnostics import Note  # which brings numpy

    known = [(label, tuning) for label, tuning in (right, left) if tuning is not None]
    if not any(tuning.trials for _, tuning in known):
        return ()
    out = [Note("tuned", ", ".join(_in_words(label, tuning) for label, tuning in known))]
    if len({tuning.trials for _, tuning in known}) > 1:
        (more, _), (less, _) = sorted(known, key=lambda pair: -pair[1].trials)
        text = f"'{more}' had more trials than '{less}': the difference is also one of how long they were tuned"
        out.append(Note("unequal tuning", text))
    out += [
        Note("tuned on test", f"'{label}' was tuned on {dataset}, on whose queries it is tested here")
        for label, tuning in known
        if tuning.trials and tuning.validation == dataset
    ]
    return tuple(out)


def _in_words(label: str, tuning: SystemTuning) -> str:
    if not tuning.trials:
        return f"'{label}' with n = 0"
    how = f"{tuning.method}, by {tuning.measure}, {counted(tuning.pairs, 'pair')} in all, sweep {tuning.sweep}"
    changed = f"; changed since: {', '.join(tuning.changed)}" if tuning.changed else ""
    trials = counted(tuning.trials, "trial") + (" in each fold" if tuning.by_fold else "")
    return f"'{label}' was tuned on validation with n = {trials} ({how}{changed})"
