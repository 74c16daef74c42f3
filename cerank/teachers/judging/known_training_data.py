"""Models whose training queries are known, to warn where a teacher may have seen the queries that it is judged on.

Only what a model's own paper or card says is listed; that a model is not here says nothing of it.
"""

from __future__ import annotations

import re

_KNOWN: tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...] = (
    (
        re.compile(r"rank_?(zephyr|vicuna)", re.IGNORECASE),
        re.compile(r"ms-?marco.*train", re.IGNORECASE),
        "MS MARCO v1 training queries (Pradeep et al. 2023)",
    ),
    (
        re.compile(r"first_?mistral", re.IGNORECASE),
        re.compile(r"ms-?marco.*train", re.IGNORECASE),
        "MS MARCO training queries (Gangi Reddy et al. 2024)",
    ),
    (
        re.compile(r"mono(t5|bert|electra)|cross-encoder/ms-marco", re.IGNORECASE),
        re.compile(r"ms-?marco.*train", re.IGNORECASE),
        "MS MARCO training queries, with their labels",
    ),
)


def leak(model: str, dataset: str) -> str:
    """Return a warning if a model is known to have been trained on a dataset's queries; "" otherwise."""
    for names, datasets, what in _KNOWN:
        if names.search(model) and datasets.search(dataset):
            return (
                f"{model} was trained on {what}: what it ranks on {dataset} is better than on queries that it never saw"
            )
    return ""
