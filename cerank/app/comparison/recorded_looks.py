"""How often the judgments of a comparison were looked at in this lab, and the record of this look.

Invariant: a comparison is known by its two rankings, its measure and its judgments, whatever its labels; the same one
seen again is no new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cerank.files.hashing import sha256_json
from cerank.runs import test_set_looks
from cerank.runs.test_set_looks import Look
from cerank.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cerank.app.comparison.comparison_schema import TestSetLooks
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.systems import Condition, System

Keys = dict[str, tuple[str, ...]]  # SHA-256 of the judgments -> a key for each comparison on them


def keys_of(comparison: Comparison) -> Keys:
    """Return the keys of a comparison's rows."""
    systems = {system.label: system for system in comparison.systems}
    rows = [(systems[row.left], systems[row.right], row.condition, row.measure) for row in comparison.rows]
    return _keys(rows)


def keys_of_pair(left: System, right: System, measures: Sequence[str]) -> Keys:
    """Return the keys of two systems, by each measure in each condition."""
    return _keys([(left, right, at.condition, measure) for at in left.measured for measure in measures])


def _keys(rows: Sequence[tuple[System, System, Condition, str]]) -> Keys:
    keys: dict[str, dict[str, None]] = {}
    for left, right, condition, measure in rows:
        judged = test_set_looks.short_key(_judgments(left, condition))
        both = sorted(_ranking(system, condition) for system in (left, right))
        keys.setdefault(judged, {})[test_set_looks.short_key(sha256_json([both, measure]))] = None
    return {judged: tuple(of) for judged, of in keys.items()}


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
    settings: Settings, keys: Keys, *, by: str, now: str, earlier: Sequence[Look] | None = None, only_new: bool = False
) -> TestSetLooks | None:
    """Add a look to the lab's record, and return how many there were; None where the lab cannot keep count.

    Args:
        settings: where the lab is.
        keys: of the comparisons seen; see `keys_of`.
        by: the command.
        now: UTC, ISO 8601.
        earlier: the looks recorded before; None reads them.
        only_new: add nothing where all of the comparisons were seen before.
    """
    looks = test_set_looks.load(settings.lab) if earlier is None else earlier
    here = [look for look in looks if look.comparisons.keys() & keys.keys()]
    before = {(judged, key) for look in here for judged in keys for key in look.comparisons.get(judged, ())}
    mine = {(judged, key) for judged, of in keys.items() for key in of}
    from cerank.app.comparison.comparison_schema import TestSetLooks

    counted = TestSetLooks(look=len(here) + 1, before=len(before), new=len(mine - before))
    if only_new and not counted.new:
        return counted
    return counted if test_set_looks.record(settings.lab, Look(time=now, by=by, comparisons=keys)) else None


def first_seen(looks: Sequence[Look], keys: Keys) -> str:
    """Return when one of the comparisons was first seen; "" for never."""
    times = [
        look.time
        for look in looks
        if any(set(look.comparisons.get(judged, ())) & set(of) for judged, of in keys.items())
    ]
    return min(times, default="")
