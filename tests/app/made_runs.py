"""Finished runs without training: real run directories whose rankings are drawn."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cerank.core.rankings import ordered
from cerank.datasets.open_datasets import open_dataset
from cerank.evaluation.measures import per_query
from cerank.files import disk
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import encode_measures
from cerank.settings import Settings
from cerank.trec.text_io import write_qrels, write_run

CREATED = "2026-01-02T03:04:05+00:00"


def changed(plan: Plan, *, seed: int = 42, margins: dict[str, float] | None = None, depth: int = 0, **others) -> Plan:
    """The plan with another seed, margins or depth."""
    recipe = plan.recipe
    evaluate = msgspec.structs.replace(recipe.evaluate, margins=margins or {})
    data = msgspec.structs.replace(recipe.data, depth=depth or recipe.data.depth)
    recipe = msgspec.structs.replace(recipe, seed=seed, evaluate=evaluate, data=data)
    return msgspec.structs.replace(plan, recipe=recipe, **others)


def made_run(settings: Settings, plan: Plan, label: str, *, skill: float = 0.5) -> RunFolder:
    """A run whose stages rank the relevant document first with probability `skill`, else anywhere."""
    plan = msgspec.structs.replace(plan, label=label)
    folder = run_store.create(settings.lab, plan, b"", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    for test in plan.recipe.data.test:
        qrels = open_dataset(test, settings.cache).qrels
        _write(folder.qrels(test), write_qrels(qrels))
        for first in plan.recipe.data.first_stages:
            for system in ("first-stage", *plan.recipe.chain):
                draw = random.Random(f"{label} {system} {first}" if system != "first-stage" else first)
                share = 0.2 if system == "first-stage" else skill
                scores = {query: _scores(draw, next(iter(judged)), share) for query, judged in qrels.items()}
                ranking = ordered(scores)
                _write(folder.ranking(system, test, first), write_run(ranking, "t"))
                values = per_query(plan.measures_on(test), qrels, ranking)
                _write(folder.measures(system, test, first), encode_measures(values))
    return folder


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, data)


def _scores(draw: random.Random, relevant: str, skill: float) -> dict[str, float]:
    scores = {f"d{number}": draw.random() for number in draw.sample(range(60), 9)}
    scores[relevant] = 2.0 if draw.random() < skill else draw.random()
    return scores
