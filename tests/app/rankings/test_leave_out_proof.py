"""Cross-validation proves itself: a model gains by true labels of the other folds, and by shuffled ones it cannot."""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cerank.app import plans
from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import run_store
from cerank.settings import Settings
from tests.model_fixtures import WORDS, write_tiny
from tests.worker.small import STAGE
from tests.worker.test_whole_runs import forked

SIGN, *OTHERS = WORDS  # a relevant document holds this word, whatever the query is
QUERIES, FOLDS, CANDIDATES = 60, 3, 8


def write_two_datasets(folder: Path) -> tuple[str, str]:
    """Return two datasets of the same queries, documents and first stage: with true labels, and with shuffled ones.

    Each query has its own candidates, one of which is relevant and at a random rank.
    """
    draw = random.Random(11)
    pairs = list(itertools.combinations(OTHERS, 2))
    texts, documents, run = {}, {}, []
    labels: dict[str, dict[str, str]] = {"true": {}, "shuffled": {}}
    for at, words in enumerate(draw.sample(pairs, QUERIES)):
        query, relevant = f"q{at}", draw.randrange(CANDIDATES)
        texts[query] = " ".join(words)
        for rank in range(CANDIDATES):
            own = draw.choices(OTHERS, k=6)
            documents[f"d{at}-{rank}"] = " ".join([*own[:3], SIGN, *own[3:]] if rank == relevant else own)
            run.append(f"{query} Q0 d{at}-{rank} {rank + 1} {20 - rank} t\n")
        labels["true"][query] = f"d{at}-{relevant}"
        labels["shuffled"][query] = f"d{at}-{draw.randrange(CANDIDATES)}"
    for name, relevant_of in labels.items():
        (folder / name / "runs").mkdir(parents=True)
        (folder / name / "queries.tsv").write_text("".join(f"{query}\t{text}\n" for query, text in texts.items()))
        (folder / name / "docs.tsv").write_text("".join(f"{doc}\t{text}\n" for doc, text in documents.items()))
        (folder / name / "qrels").write_text("".join(f"{query} 0 {doc} 1\n" for query, doc in relevant_of.items()))
        (folder / name / "runs" / "given.run").write_text("".join(run))
    return str(folder / "true"), str(folder / "shuffled")


@pytest.mark.slow  # six small runs
def test_true_labels_of_other_folds_gain_and_shuffled_ones_cannot_be_told_from_none(tmp_path):
    true, shuffled = write_two_datasets(tmp_path)
    file = tmp_path / "folds.json"
    file.write_text(json.dumps([[f"q{at}" for at in range(QUERIES) if at % FOLDS == fold] for fold in range(FOLDS)]))
    settings = Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")
    stage = STAGE | {"steps": 150, "validate_every": 50, "validation_depth": CANDIDATES}
    values = {
        "name": "proof",
        "base": str(write_tiny(tmp_path / "base").folder),
        "pooling": "mean",
        "chain": ["contrastive"],
        "force": ["shared_queries"],  # two words of a few come again
        "data": {"test": [true], "first_stages": ["given"], "depth": CANDIDATES, "folds": str(file)},
        "evaluate": {"measures": ["nDCG@10"]},
        "stages": {"contrastive": stage},
    }
    first_run = {}
    for name in ("true", "shuffled"):
        for number, of_fold in enumerate(fold_recipes(recipe_from(values, "test"))):
            data = of_fold.recipe.data
            if name == "shuffled":  # the labels of training and validation alone
                train, validation = (each.replace(true, shuffled) for each in (data.train, data.validation))
                data = msgspec.structs.replace(data, train=train, validation=validation)
            recipe = msgspec.structs.replace(of_fold.recipe, data=data)
            now = datetime(2026, 1, 2, 3 + (name == "shuffled"), 4, number, tzinfo=UTC)
            plan = plans.plan_of(recipe, settings, now=now, label=of_fold.label(name))
            run = run_store.create(settings.lab, plan, of_fold.toml, now)
            assert forked(run) == (1, 0), run.log.read_text()
            first_run.setdefault(name, run.name)
    targets = (f"{first_run['true']}@folds:first-stage", *(f"{run}@folds" for run in first_run.values()))
    comparison = comparisons.compare(settings, ComparisonRequest(targets=targets))
    rows = {row.right: row for row in comparison.rows}
    assert len(next(iter(comparison.systems[0].measured)).values["nDCG@10"]) == QUERIES
    assert rows["true"].verdict == "better"
    assert rows["true"].paired.difference > 0.2
    assert rows["shuffled"].verdict == "cannot tell"
