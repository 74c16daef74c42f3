"""From a recipe's teacher and a collection to a request for synthetic queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cerank.app.teaching.teach_options import TeachOptions, spec_of
from cerank.errors import UsageError
from cerank.recipes.schema import Recipe
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset
    from cerank.teachers.requests import TeachRequest


def request_of(recipe: Recipe, name: str, settings: Settings, collection: str, options: TeachOptions) -> TeachRequest:
    """Return the request to write queries for passages of a collection.

    Raises:
        UsageError: no such teacher, or a part of a dataset, whose documents are those of the whole.
        CerankError: the collection cannot be opened.
    """
    from cerank.machine.devices import physical_cores, resolve_device
    from cerank.teachers.budget import Caps
    from cerank.teachers.requests import TeachRequest

    spec = spec_of(recipe, name)
    return TeachRequest(
        lab=settings.lab,
        cache=settings.cache,
        name=name,
        teachers=recipe.teachers,
        dataset=_collection(collection, settings.cache),
        first_stage=options.first_stage,
        queries=(),
        caps=Caps.of(spec, cost=options.max_cost, calls=options.max_calls, tokens=options.max_tokens),
        prices=options.prices,
        retry_failed=options.retry_failed,
        device=resolve_device(settings.device),
        threads=settings.threads or physical_cores(),
    )


def _collection(name: str, cache: Path) -> Dataset:
    """Return a collection, which needs no queries."""
    from cerank.datasets.local_folders import open_folder
    from cerank.datasets.open_datasets import open_dataset, whole_and_part

    whole, part = whole_and_part(name)
    if part:
        raise UsageError("a part of a dataset has the documents of the whole", where=name, hint=f"name {whole}")
    folder = Path(whole).expanduser()
    if whole.startswith(("./", "../", "~", "/")) and folder.is_dir():
        return open_folder(folder, "", whole, cache=cache, needs_queries=False)
    return open_dataset(whole, cache)
