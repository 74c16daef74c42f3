"""Re-rank several test collections with one model: a run file for each of those on disk.

Invariant: what would be refused for any of them is refused before the first is scored, and what is left out is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cerank.app import rerank_dataset
from cerank.app.comparison.named_systems import PER_DATASET, file_name_of
from cerank.app.rerank_dataset import RerankRequest, RerankResult
from cerank.app.test_collections.collection_groups import group_of
from cerank.errors import UsageError
from cerank.settings import Settings


class RerankedCollection(msgspec.Struct, frozen=True):
    """A collection with the file that was written for it."""

    dataset: str
    output: Path
    result: RerankResult


def requests_of(settings: Settings, request: RerankRequest) -> tuple[tuple[RerankRequest, ...], str]:
    """Return the request for each collection that its dataset names and that is on disk, and what that came to.

    Args:
        settings: where the caches are.
        request: its dataset names several collections, and its output has `{dataset}`, which stands for each of them.

    Raises:
        UsageError: the output has no `{dataset}`, a file exists already, or an option is for one collection.
        MissingError: none of the collections is on disk.
    """
    output = str(request.output)
    if PER_DATASET not in output:
        what = f"several collections need a file each: put {PER_DATASET} into the name"
        hint = f"such as -o 'reranked/{PER_DATASET}.run'"
        raise UsageError(what, where=f"--output {output}", hint=hint, code="collections-output")
    for option, given in (("--mteb-predictions", request.mteb), ("--passage-scores", request.passage_scores)):
        if given is not None:
            raise UsageError("it is for one collection", where=option, hint="re-rank it alone", code="options-conflict")
    group = group_of(request.dataset, settings.cache)
    requests = [
        msgspec.structs.replace(request, dataset=name, output=Path(output.replace(PER_DATASET, file_name_of(name))))
        for name in group.here
    ]
    taken: dict[Path, str] = {}
    for each in requests:
        other = taken.setdefault(each.output, each.dataset)
        if other != each.dataset:
            what = f"{other} and {each.dataset} would be written to one file"
            raise UsageError(what, where=str(each.output), hint="re-rank them apart", code="collections-output")
        rerank_dataset.check_output(each)
    return tuple(requests), group.note()


def rerank_each(
    settings: Settings, requests: tuple[RerankRequest, ...], progress: Callable[[int, int], None]
) -> Iterator[RerankedCollection]:
    """Yield each collection once its file is written; raises as `rerank_dataset.rerank`."""
    for request in requests:
        result = rerank_dataset.rerank(settings, request, progress)
        yield RerankedCollection(request.dataset, request.output, result)
