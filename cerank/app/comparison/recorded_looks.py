"""How often the judgments of a comparison were looked at in this lab, and the record of this look.

Invariant: a comparison is known by its two rankings, its measure, its judgments and the slice of its queries, whatever
its labels; the same one seen again is no new one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cerank.errors import UsageError
from cerank.files.hashing import sha256_json
from cerank.runs import test_set_looks
from cerank.runs.test_set_looks import Look
from cerank.settings import Settings, default_lab

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cerank.app.comparison.comparison_schema import TestSetLooks
    from cerank.evaluation.compare import Comparison
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


def _keys(rows: Sequence[_Compared]) -> Keys:
    keys: dict[str, dict[str, None]] = {}
    for left, right, condition, measure, part in rows:
        judged = test_set_looks.short_key(_judgments(left, condition))
        both = sorted(_ranking(system, condition) for system in (left, right))
        what = [both, measure, part] if part else [both, measure]
        keys.setdefault(judged, {})[test_set_looks.short_key(sha256_json(what))] = None
    return {judged: tuple(of) for judged, of in keys.items()}


def earlier_verdicts(settings: Settings, comparison: Comparison) -> int:
    """Return how many comparisons had a verdict on these judgments before, those of this table aside.

    Raises:
        MissingError: the lab keeps no record of looks.
        UsageError: its record cannot be read.
    """
    mine = _primary_keys_of(comparison)
    judged = keys_of(comparison).keys()
    before = {
        (sha256, key)
        for look in test_set_looks.load_all(settings.lab)
        for sha256 in judged & look.comparisons.keys()
        for key in look.comparisons[sha256]
        if key not in look.descriptive and key not in mine.get(sha256, ())
    }
    return len(before)


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


def _ranking(system: System, condition: Condition) -> str:
    """Return the hash of a system's ranking; of a mean of seeds that of all theirs."""
    from cerank.evaluation.systems import measured_in

    own = measured_in(system, condition).ranking_sha256
    if own or not system.members:
        return own
    return sha256_json(sorted(_ranking(member, condition) for member in system.members))


def record(
    settings: Settings,
    keys: Keys,
    *,
    by: str,
    now: str,
    earlier: Sequence[Look] | None = None,
    only_new: bool = False,
    descriptive: Sequence[str] = (),
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
    """
    if settings.lab == default_lab() and not settings.lab.exists():
        return None
    looks = test_set_looks.load(settings.lab) if earlier is None else earlier
    here = [look for look in looks if look.comparisons.keys() & keys.keys()]
    before = {(judged, key) for look in here for judged in keys for key in look.comparisons.get(judged, ())}
    mine = {(judged, key) for judged, of in keys.items() for key in of}
    from cerank.app.comparison.comparison_schema import TestSetLooks

    counted = TestSetLooks(look=len(here) + 1, before=len(before), new=len(mine - before))
    if only_new and not counted.new:
        return counted
    look = Look(time=now, by=by, comparisons=keys, descriptive=tuple(descriptive))
    return counted if test_set_looks.record(settings.lab, look) else None


def record_shown(settings: Settings, comparisons: Iterable[Comparison], *, by: str) -> None:
    """Add the tables that a command shows to the lab's record, each as a look; nothing where all of it was seen before.

    For tables of runs that are there already, such as those of a matrix: reading one again is no new look.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for comparison in comparisons:
        descriptive = descriptive_keys_of(comparison)
        record(settings, keys_of(comparison), by=by, now=now, only_new=True, descriptive=descriptive)


def keys_of_statistics(qrels_sha256: str, statistics: Iterable[object]) -> Keys:
    """Return the keys of verdicts that are of no two systems, such as effects; each is JSON that names one."""
    keys = dict.fromkeys(test_set_looks.short_key(sha256_json(each)) for each in statistics)
    return {test_set_looks.short_key(qrels_sha256): tuple(keys)}


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
