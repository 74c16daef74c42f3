"""What the tests of imports share: rows as JSONL, and a small collection that ids may refer to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.importing.import_files import Imported, ImportOptions, import_files


def jsonl(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def scores(dataset: Dataset, run: str) -> dict[str, dict[str, float]]:
    """query -> document -> score of a run."""
    ranking = dataset.run(run).ranking
    return {query: dict(zip(ranking[query], ranking.scores(query), strict=True)) for query in ranking}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Four queries and twenty passages called by numbers, as MS MARCO's are; judged are 1 to 3."""
    folder = tmp_path / "collection"
    folder.mkdir()
    (folder / "docs.jsonl").write_text(jsonl([{"doc_id": str(n), "text": f"passage {n}"} for n in range(20)]))
    (folder / "queries.tsv").write_text("".join(f"{n}\tquery {n}\n" for n in range(1, 5)))
    (folder / "qrels").write_text("1 0 10 1\n2 0 11 1\n3 0 12 1\n")
    return folder


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[Imported, Dataset]]:
    """Imports a text as a file of a format, and opens what came of it."""

    def act(name: str, content: str | bytes, file: str = "file", **choices: object) -> tuple[Imported, Dataset]:
        path = tmp_path / file
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        into = tmp_path / "out" / name
        found = import_files(name, [path], into, ImportOptions(**choices))  # type: ignore[arg-type]
        return found, open_dataset(str(into), tmp_path)

    return act
