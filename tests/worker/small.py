"""A small run that goes through everything a large one does, in a few seconds of computing."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

from cerank.app.plans import plan_of
from cerank.recipes.plan import Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from tests.model_fixtures import WORDS, write_tiny

STAGE = {
    "steps": 30,
    "learning_rate": 1e-3,
    "group_size": 4,
    "groups_per_step": 2,
    "max_length": 24,
    "max_query_length": 8,
    "validate_every": 10,
    "validation_depth": 5,
    "window": [1, 10],
}


def write_dataset(folder: Path, queries: int = 40, documents: int = 60, seed: int = 7) -> Path:
    """A folder dataset: each query is two words, its relevant document holds both."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    texts = {f"d{i}": " ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for i in range(documents)}
    with (folder / "queries.tsv").open("w") as topics, (folder / "qrels").open("w") as qrels:
        for i in range(queries):
            document = f"d{i}"
            topics.write(f"q{i}\t{' '.join(draw.sample(texts[document].split(), 2))}\n")
            qrels.write(f"q{i} 0 {document} 1\n")
    (folder / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in texts.items()))
    (folder / "runs").mkdir()
    lines = []
    for i in range(queries):
        ranked = draw.sample(sorted(texts), 10)
        lines += [f"q{i} Q0 {document} {rank} {20 - rank} t\n" for rank, document in enumerate(ranked, 1)]
    (folder / "runs" / "oracle.run").write_text("".join(lines))
    return folder


def small_plan(folder: Path, *, two_tests: bool = False, **changes: object) -> tuple[Plan, Settings]:
    """The plan of a two-stage run on a dataset and base made under `folder`, and the settings of a lab there."""
    data = str(write_dataset(folder / "data"))
    # as in pydocs: the same ids as in training, and other texts
    apart = write_dataset(folder / "apart", seed=8)
    base = write_tiny(folder / "base").folder
    settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
    values = {
        "name": "small",
        "base": str(base),
        "pooling": "mean",
        "chain": ["contrastive", "distill"],
        "force": ["shared_queries"],  # two words of twenty come again
        "data": {
            "train": f"{data}[:50%]",
            "validation": f"{apart}[50%:70%]",
            "test": [f"{data}[70%:]", str(apart)] if two_tests else [f"{data}[70%:]"],
            "first_stages": ["bm25", "oracle"],
            "depth": 8,
        },
        "stages": {
            "contrastive": STAGE,
            "distill": {**STAGE, "loss": "ranknet", "source": "teacher", "teacher": "oracle"},
        },
        **changes,
    }
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return plan_of(recipe_from(values, "test"), settings, now=now), settings


def small_run(folder: Path, plan: Plan, settings: Settings, second: int = 0) -> RunFolder:
    """A run of the plan that waits for a worker; `second` tells several apart."""
    return run_store.create(settings.lab, plan, b"", datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC))


def bits_of(run: RunFolder) -> dict[str, bytes]:
    """Every file of a finished run that the plan alone decides, by its path."""
    wanted = [run.path / "rankings", run.path / "measures", run.path / "qrels", run.path / "candidates"]
    wanted += [run.path / "teachers", run.path / "stages"]
    found = {}
    for folder in wanted:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and ".bad" not in str(path):
                found[path.relative_to(run.path).as_posix()] = path.read_bytes()
    return found
