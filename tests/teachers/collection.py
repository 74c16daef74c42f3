"""A small collection whose best documents are known, and a recipe with teachers over it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from cerank.datasets.open_datasets import open_dataset
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.requests import TeachRequest


def write_collection(folder: Path, queries: int = 6, depth: int = 12) -> Path:
    """Write documents "word N" of which the larger N is the better, a shuffled first stage, and qrels."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(1)
    documents, qrels, run, texts = [], [], [], []
    for query in range(queries):
        texts.append(f"q{query}\tquery number {query}")
        values = generator.sample(range(100, 1000), depth)
        for rank, value in enumerate(values, 1):
            doc = f"d{query}-{value}"
            documents.append(json.dumps({"doc_id": doc, "text": f"text of query {query} worth {value}"}))
            run.append(f"q{query} Q0 {doc} {rank} {depth - rank + 1} first")
            qrels.append(f"q{query} 0 {doc} {2 if value == max(values) else 1 if value > 800 else 0}")
    (folder / "docs.jsonl").write_text("\n".join(documents) + "\n")
    (folder / "queries.tsv").write_text("\n".join(texts) + "\n")
    (folder / "qrels").write_text("\n".join(qrels) + "\n")
    (folder / "first.run").write_text("\n".join(run) + "\n")
    return folder


def request_for(folder: Path, spec: TeacherSpec | dict[str, TeacherSpec], room: Path, **more: Any) -> TeachRequest:
    """The request to rank all queries of a collection by `spec`, in a lab of its own."""
    teachers = spec if isinstance(spec, dict) else {"zephyr": spec}
    dataset = open_dataset(str(folder), room / "cache")
    given: dict[str, Any] = {"name": next(iter(teachers)), "queries": tuple(dataset.queries)} | more
    return TeachRequest(
        lab=room / "lab",
        cache=room / "cache",
        teachers=teachers,
        dataset=dataset,
        first_stage=str(folder / "first.run"),
        **given,
    )


def best_first(docs: tuple[str, ...]) -> tuple[str, ...]:
    """The documents in the order of their worth."""
    return tuple(sorted(docs, key=lambda doc: -int(doc.rpartition("-")[2])))
