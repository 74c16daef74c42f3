"""Rankings and measures as mteb keeps them: TASK_predictions.json, which it re-ranks from, and TASK.json, its results.

Invariant: names and nesting are mteb's own, so that `convert_to_reranking` and its tables read what is written here.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cerank.errors import FormatError, UsageError
from cerank.files import disk, json_records
from cerank.files.safe_open import read_file
from cerank.text.safe_text import shown

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)  # mteb's own
_NAMES = {"nDCG": "ndcg", "AP": "map", "R": "recall", "P": "precision", "RR": "mrr", "Success": "hit_rate"}
MAIN = "ndcg_at_10"  # main score of its retrieval tasks
_META = "mteb_model_meta"


class MtebTask(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an mteb task that a ranking belongs to, and the folder for its files."""

    folder: Path
    task: str  # such as "NFCorpus"
    subset: str = "default"
    split: str = "test"

    @property
    def predictions(self) -> Path:
        """Return the file that mteb re-ranks from."""
        return self.folder / f"{self.task}_predictions.json"

    @property
    def results(self) -> Path:
        """Return the file of its results."""
        return self.folder / f"{self.task}.json"


def measure_names() -> dict[str, str]:
    """Return measure as ir_measures names it -> key in mteb's results."""
    return {f"{name}@{cut}": f"{key}_at_{cut}" for name, key in _NAMES.items() for cut in CUTOFFS}


def check_task(task: MtebTask, *, replace: bool) -> None:
    """Check that the files can be written, before anything is scored.

    Raises:
        UsageError: a name is none, the folder does not exist, or a file holds this split already.
        FormatError: a file there is none of mteb's.
    """
    for where, name in (("--mteb-task", task.task), ("--mteb-subset", task.subset), ("--mteb-split", task.split)):
        if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
            raise UsageError(f"'{shown(name, 100)}' is no name of mteb's", where=where, hint="such as NFCorpus")
    if not task.folder.is_dir():
        raise UsageError("the folder does not exist", where=f"--mteb-predictions {task.folder}", code="folder-missing")
    held = _load(task.predictions).get(task.subset, {})
    if isinstance(held, dict) and task.split in held and not replace:
        what = f"the file holds a ranking of {task.subset}, {task.split} already"
        raise UsageError(what, where=str(task.predictions), hint="--replace overwrites it", code="file-exists")
    _load(task.results)


def write_predictions(task: MtebTask, scores: Mapping[str, Mapping[str, float]], model: str) -> None:
    """Write a ranking into its split; other splits in the file stay.

    Args:
        task: where it belongs.
        scores: query -> document -> score.
        model: name of the model.
    """
    values = _load(task.predictions)
    values[_META] = {"model_name": model, "revision": None}
    subset = values.setdefault(task.subset, {})
    subset[task.split] = {
        query: {document: float(score) for document, score in row.items()} for query, row in scores.items()
    }
    disk.write(task.predictions.resolve(), msgspec.json.encode(values))


def write_results(task: MtebTask, values: Mapping[str, Mapping[str, float]], qrels_sha256: str, seconds: float) -> None:
    """Write means into the split's results; other splits in the file stay.

    Args:
        task: where they belong.
        values: measure, as `measure_names` has it -> query -> value.
        qrels_sha256: hash of the judgments, which stands for a revision that mteb does not know.
        seconds: time that scoring took.
    """
    names = measure_names()
    means = {names[name]: round(statistics.fmean(row.values()), 5) for name, row in values.items() if row}
    row: dict[str, Any] = {**means, "main_score": means[MAIN], "hf_subset": task.subset, "languages": []}
    document = _load(task.results) or {"scores": {}}
    other_subsets = [entry for entry in document["scores"].get(task.split, []) if entry.get("hf_subset") != task.subset]
    document["scores"][task.split] = [*other_subsets, row]
    document |= {
        "task_name": task.task,
        "dataset_revision": f"judgments {qrels_sha256[:12]}",
        "mteb_version": None,
        "evaluation_time": round(seconds, 3),
        "kg_co2_emissions": None,
    }
    disk.write(task.results.resolve(), msgspec.json.format(msgspec.json.encode(document)))


def _load(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of mteb's; {} where there is no file."""
    if not path.exists():
        return {}
    try:
        values = json_records.decode(read_file(path), dict[str, Any])
        if path.name.endswith("_predictions.json"):
            is_known = all(isinstance(value, dict) for value in values.values())
        else:
            is_known = isinstance(values.get("scores"), dict)
    except (OSError, msgspec.DecodeError, RecursionError):
        is_known = False
    if not is_known:
        raise FormatError("the file is there, and is none of mteb's", where=str(path), code="wrong-json-form")
    return values
