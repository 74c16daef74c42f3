"""Grades that a model gave, as qrels, and how far they agree with people's.

Invariant: labels of a model are written with their provenance beside them, never among labels of people.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from cerank.core.rankings import Ranking
from cerank.teachers.judging.agreement import kappa, kendall_tau, tau_ap

FEWEST_SYSTEMS = 3  # whose order says anything
_FAMILIES = ("qwen", "llama", "mistral", "mixtral", "zephyr", "gpt", "gemma", "phi", "deepseek", "claude", "command")

Qrels = Mapping[str, Mapping[str, int]]


class LabelAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's grades agree with people's on the documents that both judged."""

    pairs: int
    kappa: float | None  # None where it is undefined: all grades are the same
    weighted_kappa: float | None  # quadratic weights
    binary_kappa: float | None  # relevant from grade 1 on
    confusion: dict[int, dict[int, int]]  # people's grade -> the model's -> documents


class SystemAgreement(msgspec.Struct, frozen=True):
    """Whether both kinds of labels put systems in the same order."""

    systems: int
    tau: float
    tau_ap: float


def grades_of(ranking: Ranking) -> dict[str, dict[str, int]]:
    """Return the grades in a graded teacher's ranking, whose scores are grades moved apart by a float32."""
    return {
        query: {doc: round(score) for doc, score in zip(docs, ranking.scores(query), strict=True)}
        for query, docs in ranking.items()
    }


def agreement(by_model: Qrels, by_people: Qrels) -> LabelAgreement:
    """Return the agreement on documents that both judged."""
    pairs = [
        (row[doc], grade)
        for query, grades in by_model.items()
        for doc, grade in grades.items()
        if doc in (row := by_people.get(query, {}))
    ]
    confusion: dict[int, dict[int, int]] = {}
    for (people, model), count in sorted(Counter(pairs).items()):
        confusion.setdefault(people, {})[model] = count
    return LabelAgreement(
        pairs=len(pairs),
        kappa=kappa(pairs),
        weighted_kappa=kappa(pairs, weighted=True),
        binary_kappa=kappa([(int(people > 0), int(model > 0)) for people, model in pairs]),
        confusion=confusion,
    )


def system_agreement(by_model: Mapping[str, float], by_people: Mapping[str, float]) -> SystemAgreement | None:
    """Return whether two sets of labels order systems alike; None for fewer than three systems.

    Args:
        by_model: system -> its mean under the model's labels.
        by_people: the same under people's, which are taken for the truth.
    """
    if len(by_people) < FEWEST_SYSTEMS:
        return None
    truth = sorted(by_people, key=lambda system: -by_people[system])
    given = sorted(truth, key=lambda system: -by_model[system])
    return SystemAgreement(len(truth), kendall_tau(given, truth), tau_ap(given, truth))


def family_warnings(judge: str, systems: Sequence[str]) -> list[str]:
    """Return a warning for each system whose name tells that it is of the judge's family of models."""
    warnings = []
    for family, system in itertools.product(_FAMILIES, systems):
        if all(re.search(family, name, re.IGNORECASE) for name in (judge, system)):
            warnings.append(f"{judge} and {system} are of one family ({family}): such a judge favors it")
    return warnings
