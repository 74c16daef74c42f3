"""Datasets whose queries a model wrote: marked as such, for training and validation only.

Invariant: no recipe measures a test on them, for their labels say no more than which passage a query was written for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cerank.datasets.dataset import Dataset
from cerank.errors import RecipeError

MARKER = "synthetic.json"  # in the folder of such a dataset: how its queries were made


def is_synthetic(dataset: Dataset) -> bool:
    """Return whether a model wrote the dataset's queries."""
    return bool(dataset.location) and (Path(dataset.location) / MARKER).is_file()


def check_tests(tests: Mapping[str, Dataset], where: str) -> None:
    """Check that no test dataset holds queries that a model wrote.

    Raises:
        RecipeError: one does.
    """
    for name, dataset in tests.items():
        if is_synthetic(dataset):
            what = f"data.test: a model wrote the queries of {name}; they may train and validate, and test nothing"
            hint = "test on queries of people, with labels of people"
            raise RecipeError(what, where=where, hint=hint, code="synthetic-test")
