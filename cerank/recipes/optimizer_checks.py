"""Say what contradicts itself in how a stage's weights are changed, averaged and kept, as `key.path: what`."""

from __future__ import annotations

from collections import Counter

from cerank.recipes.schema import Stage

OPTIMIZERS = {"adamw": "AdamW", "lion": "Lion"}
_OF_ADAMW, _OF_LION = ("betas", "epsilon"), ("lion_betas",)


def optimizer_mistakes(at: str, stage: Stage) -> list[str]:
    """Return the mistakes in the optimizer of a stage, in its average of weights, and in the weights that it keeps.

    Args:
        at: key path of the stage.
        stage: its settings.
    """
    default = Stage()
    others = _OF_ADAMW if stage.optimizer == "lion" else _OF_LION
    mistakes = [
        f'{at}.{key}: does nothing with optimizer = "{stage.optimizer}"; leave it out, or take the other optimizer'
        for key in others
        if getattr(stage, key) != getattr(default, key)
    ]
    if stage.ema_for != default.ema_for and not stage.ema:
        mistakes.append(f"{at}.ema_for: there is no average of the weights; set ema, such as 0.999, or leave it out")
    twice = [measure for measure, count in Counter(stage.keep_best).items() if count > 1]
    mistakes += [f"{at}.keep_best: '{measure}' appears twice" for measure in twice]
    if stage.validation_measure in stage.keep_best and stage.keep == "best":
        what = f"'{stage.validation_measure}' decides what the stage hands on, which is kept anyway; leave it out"
        mistakes.append(f"{at}.keep_best: {what}")
    if stage.keep_best and not stage.validate_every:
        what = "needs validate_every: with one validation, at the end, every measure has the same best weights"
        mistakes.append(f"{at}.keep_best: {what}")
    return mistakes
