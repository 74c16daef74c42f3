"""How often the judgments of a comparison were looked at in this lab, and the record of this look.

Invariant: a comparison is known by its two rankings, its measure, its judgments and the slice of its queries, whatever
its labels; the same one seen again is no new one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations
from typing import TYPE_CHECKING

from cerank.errors import UsageError
from cerank.files.hashing import sha256_json
from cerank.runs import test_set_looks
from cerank.runs.test_set_looks import Look, short_key
from cerank.settings import Settings, default_lab

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from cerank.app.comparison.comparison_schema import TestSetLooks
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.evaluation.systems import Condition, System

Keys = dict[str, tuple[str, ...]]  # SHA-256 of the judgments -> a key for each comparison on them
_Compared = tuple["System", "System", "Condition", str, str]  # baseline, system, where, measure, slice ("" for all)


def keys_of(comparison: Comparison) -> Keys:
    """Return the keys of a comparison's rows."""
    return _keys(_compared(comparison))


def descriptive_keys_of(comparison: Comparison) -> tuple[str, ...]:
    """Return the keys of the rows that had no verdict: descriptive ones, and identical rankings."""
    with_verdict = {key for of in _primary_keys_of(comparison).values() for key in of}
    return tuple(key for of in keys_of(comparison).values() for key in of if key not in with_verdict)


def _primary_keys_of(comparison: Comparison) -> Keys:
    return _keys(_compared(comparison, only_judged=True))


def _compared(comparison: Comparison, *, only_judged: bool = False) -> list[_Compared]:
    systems = {system.label: system for system in comparison.systems}
    return [
        (systems[row.left], systems[row.right], row.condition, row.measure, "")
        for row in comparison.rows
        if not only_judged or (row.is_primary and row.verdict != "identical")
    ]


def keys_of_pair(left: System, right: System, measures: Sequence[str], slices: Sequence[tuple[str, str]] = ()) -> Keys:
    """Return the keys of two systems, by each measure in each condition, and by a measure on each slice."""
    measured_parts = [*((measure, "") for measure in measures), *slices]
    return _keys(
        [(left, right, at.condition, measure, part) for at in left.measured for measure, part in measured_parts]
    )


def key_of_rankings(left: str, right: str, measure: str) -> str:
    """Return the key of two rankings by a measure, from their hashes: the one that a comparison of them has."""
    return short_key(sha256_json([sorted((left, right)), measure]))


def _keys(rows: Sequence[_Compared]) -> Keys:
    from cerank.evaluation.systems import ranking_identity

    keys: dict[str, dict[str, None]] = {}
    for left, right, condition, measure, part in rows:
        judged = short_key(_judgments(left, condition))
        both = sorted(ranking_identity(system, condition) for system in (left, right))
        key = key_of_statistic([both, measure, part]) if part else key_of_rankings(both[0], both[1], measure)
        keys.setdefault(judged, {})[key] = None
    return {judged: tuple(of) for judged, of in keys.items()}


def keys_of_interaction(systems: Sequence[System], conditions: Sequence[Condition], measure: str) -> Keys:
    """Return the keys of the verdicts on an interaction: of the test over all, and of each contrast.

    A contrast is known by its four rankings: of two systems in two conditions on the same judgments.
    """
    from cerank.evaluation.systems import ranking_identity

    ranked = [[ranking_identity(system, condition) for condition in conditions] for system in systems]
    statistics: list[object] = [["interaction", measure, sorted(sorted(row) for row in ranked)]]
    statistics += [
        ["contrast", measure, sorted(sorted(pair) for pair in ((ours[at], theirs[at]), (ours[other], theirs[other])))]
        for ours, theirs in combinations(ranked, 2)
        for at, other in combinations(range(len(conditions)), 2)
    ]
    return keys_of_statistics(_judgments(systems[0], conditions[0]), statistics)


def keys_of_pooled(result: PooledResult | None) -> Keys:
    """Return the keys of the lines over several collections, each under the judgments of all of these.

    A line over one collection and one first stage is the comparison there, which has its own key. One of summaries that
    do not say what they were judged by has none.
    """
    keys: dict[str, dict[str, None]] = {}
    for row in result.rows if result is not None else ():
        if not row.is_of_several or not all(each.qrels_sha256 for each in row.collections):
            continue
        parts = sorted([each.qrels_sha256, sorted(sorted(pair) for pair in each.rankings)] for each in row.collections)
        labels = [] if all(each.rankings for each in row.collections) else [row.left, row.right]
        key = short_key(sha256_json(["pooled", row.measure, parts, labels]))
        for each in row.collections:
            keys.setdefault(short_key(each.qrels_sha256), {})[key] = None
    return {judged: tuple(of) for judged, of in keys.items()}


def earlier_verdicts(settings: Settings, comparison: Comparison, pooled: PooledResult | None = None) -> int:
    """Return how many comparisons had a verdict on these judgments before, those of this table aside.

    Args:
        settings: where the lab is.
        comparison: the table.
        pooled: its lines over several collections; None where there are none.

    Raises:
        MissingError: the lab keeps no record of looks.
        UsageError: its record cannot be read.
    """
    of_pooled = keys_of_pooled(pooled)
    mine = _distinct(_primary_keys_of(comparison), of_pooled)
    judged = keys_of(comparison).keys()
    before = {
        each
        for look in test_set_looks.load_all(settings.lab)
        for each in test_set_looks.distinct(_only(look.comparisons, judged), look.pooled)
        if each[1] not in look.descriptive
    }
    return len(before - mine)


def _distinct(keys: Keys, of_pooled: Keys) -> set[tuple[str, str]]:
    return test_set_looks.distinct(keys, ()) | test_set_looks.distinct(of_pooled, _all_of(of_pooled))


def _all_of(keys: Keys) -> frozenset[str]:
    return frozenset(key for of in keys.values() for key in of)


def _only(keys: Mapping[str, tuple[str, ...]], judged: Container[str]) -> Keys:
    return {sha256: of for sha256, of in keys.items() if sha256 in judged}


def next_look(settings: Settings, keys: Keys) -> int:
    """Return which look at these judgments the next one is, from 1; one of any command counts.

    Raises:
        MissingError: the lab keeps no record of looks.
        UsageError: its record cannot be read.
    """
    return 1 + sum(bool(look.comparisons.keys() & keys.keys()) for look in test_set_looks.load_all(settings.lab))


def _judgments(system: System, condition: Condition) -> str:
    from cerank.evaluation.systems import measured_in

    return measured_in(system, condition).qrels_sha256


def record(
    settings: Settings,
    keys: Keys,
    *,
    by: str,
    now: str,
    earlier: Sequence[Look] | None = None,
    only_new: bool = False,
    descriptive: Sequence[str] = (),
    pooled: PooledResult | None = None,
) -> TestSetLooks | None:
    """Add a look to the lab's record, and return how many there were; None where the lab cannot keep count.

    A lab that the user did not name is not made for this: without one, looks at plain files are not counted.

    Args:
        settings: where the lab is.
        keys: of the comparisons seen; see `keys_of`.
        by: the command.
        now: UTC, ISO 8601.
        earlier: the looks recorded before; None reads them.
        only_new: add nothing where all of the comparisons were seen before.
        descriptive: the keys that had no verdict.
        pooled: the lines over several collections that were shown with them.
    """
    if settings.lab == default_lab() and not settings.lab.exists():
        return None
    looks = test_set_looks.load(settings.lab) if earlier is None else earlier
    of_pooled = keys_of_pooled(pooled)
    mine, judged = _distinct(keys, of_pooled), keys.keys() | of_pooled.keys()
    here = [look for look in looks if look.comparisons.keys() & judged]
    before = {each for look in here for each in test_set_looks.distinct(_only(look.comparisons, judged), look.pooled)}
    from cerank.app.comparison.comparison_schema import TestSetLooks

    counted = TestSetLooks(look=len(here) + 1, before=len(before), new=len(mine - before))
    if not mine or (only_new and not counted.new):
        return counted
    look = Look(
        time=now,
        by=by,
        comparisons={sha256: (*keys.get(sha256, ()), *of_pooled.get(sha256, ())) for sha256 in sorted(judged)},
        descriptive=tuple(descriptive),
        pooled=tuple(sorted(_all_of(of_pooled))),
    )
    return counted if test_set_looks.record(settings.lab, look) else None


def record_shown(
    settings: Settings, comparisons: Iterable[Comparison], *, by: str, pooled: PooledResult | None = None
) -> None:
    """Add the tables that a command shows to the lab's record, each as a look; nothing where all of it was seen before.

    For tables of runs that are there already, such as those of a matrix: reading one again is no new look.

    Args:
        settings: where the lab is.
        comparisons: the tables.
        by: the command.
        pooled: the lines over several collections that are shown with a table.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for comparison in comparisons:
        descriptive = descriptive_keys_of(comparison)
        record(settings, keys_of(comparison), by=by, now=now, only_new=True, descriptive=descriptive, pooled=pooled)


def keys_of_statistics(qrels_sha256: str, statistics: Iterable[object]) -> Keys:
    """Return the keys of verdicts that are of no two systems, such as effects; each is JSON that names one."""
    keys = dict.fromkeys(key_of_statistic(each) for each in statistics)
    return {short_key(qrels_sha256): tuple(keys)}


def key_of_statistic(statistic: object) -> str:
    """Return the key of what JSON names."""
    return short_key(sha256_json(statistic))


def not_kept(settings: Settings) -> UsageError:
    """Return the error for a look that was to be counted by the record, and cannot be added to it."""
    return UsageError(
        "this look cannot be added to the lab's record, so that later ones would not count it",
        where=str(test_set_looks.path_of(settings.lab)),
        hint="make the lab writable, or compare without --family looks",
        code="look-not-kept",
    )


def first_seen(looks: Sequence[Look], keys: Keys) -> str:
    """Return when one of the comparisons was first seen; "" for never."""
    times = [
        look.time
        for look in looks
        if any(set(look.comparisons.get(judged, ())) & set(of) for judged, of in keys.items())
    ]
    return min(times, default="")
