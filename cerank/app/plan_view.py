"""A plan as text to read, and what differs between two plans, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from cerank import recipes
from cerank.recipes.plan import Plan
from cerank.text.safe_text import counted


class SettingDifference(NamedTuple):
    """One setting that two plans do not share; "" where a plan lacks it."""

    key: str
    one: str
    other: str


def text(plan: Plan) -> str:
    """Return the plan as TOML, as the user would write its recipe, with what it reads and runs on as comments."""
    lines = [
        recipes.render(plan.requested_recipe).rstrip(),
        "",
        f"# fingerprint {plan.fingerprint}",
        f"# created {plan.created}",
    ]
    lines += [f"# {key} {value}" for key, value in _around(plan)]
    return "\n".join(lines) + "\n"


def differences(plan: Plan, other: Plan) -> tuple[SettingDifference, ...]:
    """Return every setting, input, device and version in which two plans differ, in the order of the first."""
    left, right = dict(_settings(plan)), dict(_settings(other))
    keys = [*left, *(key for key in right if key not in left)]
    rows = (SettingDifference(key, left.get(key, ""), right.get(key, "")) for key in keys)
    return tuple(row for row in rows if row.one != row.other)


def recipe_settings(plan: Plan) -> dict[str, str]:
    """Return the settings of a plan's recipe as texts, by key path."""
    return dict(_flat("", msgspec.to_builtins(plan.recipe)))


def _settings(plan: Plan) -> Iterator[tuple[str, str]]:
    yield from _flat("", msgspec.to_builtins(plan.recipe))
    yield from _around(plan)


def _around(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "device", f"{', '.join(plan.devices) or plan.device}, {counted(plan.threads, 'thread')}"
    if plan.step_shards:
        yield "step shards", f"{plan.step_shards} at most"
    for entry in plan.inputs:
        yield f"{entry.role} {entry.name}", f"sha256 {entry.sha256[:16]}"
        if entry.role == "base" and entry.notes:
            yield f"base {entry.name} read as", "; ".join(entry.notes)
    for extension in plan.extensions:
        release = f"{extension.distribution} {extension.version}"
        yield f"{extension.kind} {extension.name}", f"{release}, sha256 {extension.sha256[:16]}"
    yield from plan.versions.items()


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list | tuple):
        yield path, ", ".join(map(str, value))
    else:
        yield path, str(value)
