"""Parts of a dataset's queries by something that the data says of them: how much is relevant to each, or a field.

`COLL[:60% by relevant]` has queries with few and with many relevant documents as the whole has. `COLL[:60% by date]`
has the queries with the lowest values of their field `date`, and `COLL[60%: by source]` takes whole sources.
Invariant: parts with bounds that meet are disjoint and hold all queries; queries that belong together are in one part.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cerank.datasets.dataset import Dataset, bounds_of
from cerank.datasets.folds import near_duplicates
from cerank.errors import UsageError
from cerank.registry import nearest
from cerank.text.safe_text import counted, shown

RELEVANT = "relevant"  # in place of a field: the number of relevant documents
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fill 0 to 1 evenly however far they have come
_SPLIT = re.compile(r"\[(?P<bounds>[^\[\]]*:[^\[\]]*?) by (?P<key>[^\[\]:]+)\]")
_HINT = "give --split-by relevant, or leave it out"


def split_key(part: str) -> str:
    """Return what a part such as "[:60% by date]" is by; "" for a part of another kind."""
    match = _SPLIT.fullmatch(part)
    return match["key"] if match else ""


def without_key(part: str) -> str:
    """Return a part without what it is by: "[:60%]" for "[:60% by date]"."""
    match = _SPLIT.fullmatch(part)
    return f"[{match['bounds']}]" if match else part


def part_by(dataset: Dataset, part: str) -> Dataset:
    """Return the part that "[60%:80% by KEY]" selects: fewer queries, all documents and runs.

    By `relevant` the queries are lined up so that any stretch of them has the whole's distribution of the number of
    relevant documents, and queries of nearly one text stay together. By a field they are lined up by its value (as
    numbers, where all are), and queries of one value stay together. What stays together goes where it begins.

    Raises:
        UsageError: the queries have no such field, or some of them have no value of it; the part holds no query.
    """
    where, key = f"{dataset.name}{part}", split_key(part)
    groups = _stratified(dataset) if key == RELEVANT else _by_field(dataset, key, where)
    low, high = bounds_of(without_key(part), len(dataset.queries), where)
    start, picked, inside = 0, set[str](), list[str]()
    for value, queries in groups:
        if low <= start < high:
            picked.update(queries)
            inside.append(value)
        start += len(queries)
    if not picked:
        largest = max(groups, key=lambda group: len(group[1]))
        what = f"the part holds none of the {counted(len(dataset.queries), 'query')}"
        hint = f"{len(largest[1])} of them are of one {key}, '{shown(largest[0], 40)}', and stay together"
        raise UsageError(what, where=where, hint=hint if len(largest[1]) > 1 else "", code="query-range-empty")
    ids = hashlib.sha256(json.dumps(sorted(picked)).encode()).hexdigest()[:16]
    notes = () if key == RELEVANT else (f"{key} from {shown(inside[0], 40)} to {shown(inside[-1], 40)}",)
    return replace(
        dataset,
        name=where,
        part=f"{part} of {ids}",  # by the queries, whatever their fields say
        queries={query: text for query, text in dataset.queries.items() if query in picked},
        qrels={query: row for query, row in dataset.qrels.items() if query in picked},
        notes=(*dataset.notes, *notes),
    )


def _stratified(dataset: Dataset) -> list[tuple[str, list[str]]]:
    """Return groups of nearly equal queries, of which any stretch has few and many relevant documents alike."""

    def relevant(group: Sequence[str]) -> float:
        return sum(sum(grade > 0 for grade in dataset.qrels.get(query, {}).values()) for query in group) / len(group)

    groups = [sorted(group) for group in near_duplicates(dataset.queries)]
    ordered = sorted(groups, key=lambda group: (relevant(group), hashlib.sha256(group[0].encode()).digest()))
    place = {group[0]: (at * _GOLDEN) % 1 for at, group in enumerate(ordered)}
    return [(f"{relevant(group):g}", group) for group in sorted(ordered, key=lambda group: place[group[0]])]


def _by_field(dataset: Dataset, key: str, where: str) -> list[tuple[str, list[str]]]:
    """Return the queries of each value of a field, in the order of the values."""
    fields = dataset.query_fields() if dataset.query_fields is not None else {}
    known = dict.fromkeys(name for query in dataset.queries for name in fields.get(query, {}))
    if key not in known:
        has = f"they have {', '.join(shown(name, 40) for name in known)}" if known else "they have a text alone"
        hint = f"{nearest(key, known)}; {_HINT}" if known else _HINT
        raise UsageError(
            f"the queries have no field '{shown(key, 40)}': {has}", where=where, hint=hint, code="query-field-missing"
        )
    without = [query for query in dataset.queries if not fields.get(query, {}).get(key, "").strip()]
    if without:
        what = f"{len(without)} of {counted(len(dataset.queries), 'query')} have no '{shown(key, 40)}'"
        hint = f"such as '{shown(without[0], 60)}'; {_HINT}"
        raise UsageError(what, where=where, hint=hint, code="query-field-missing")
    groups: dict[str, list[str]] = {}
    for query in dataset.queries:
        groups.setdefault(fields[query][key].strip(), []).append(query)
    order = _value_order(groups)
    return sorted(groups.items(), key=lambda group: order(group[0]))


def _value_order(values: Mapping[str, object]) -> Callable[[str], tuple[float, str]]:
    """Return the key to sort values by: as numbers where all of them are, else as text, by which ISO dates sort."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        return lambda value: (0.0, value)
    if not all(map(math.isfinite, numbers.values())):
        return lambda value: (0.0, value)
    return lambda value: (numbers[value], value)
