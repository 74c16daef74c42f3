"""A plan: the recipe complete, every path resolved, every input hashed. Its fingerprint is the identity of a run."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cerank.domain.recipe import Recipe

PLAN_FORMAT = 1


class Input(msgspec.Struct, frozen=True, order=True):
    """Something a run reads, pinned by its content."""

    role: str  # "base", "dataset", "first_stage", "teacher"
    name: str  # as the recipe names it
    sha256: str
    location: str = ""  # a path or hub id; "" where the name says it all. Not part of the fingerprint


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to know, frozen before it starts."""

    format: int = PLAN_FORMAT
    recipe: Recipe
    inputs: tuple[Input, ...]
    device: str  # "cpu", "cuda" for any GPU, "cuda:0" for a certain one, "mps"
    threads: int  # CPU threads of the model; part of the identity, for they move scores by some 1e-8
    cache: str  # folder of indexes and built datasets; may be emptied at any time
    label: str = ""  # a person's word for it; text, never a path
    created: str = ""  # UTC, ISO 8601
    versions: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides numbers and verdicts: recipe, inputs' hashes, device kind, threads; 64 hex digits."""
        identity = (
            self.format,
            _named_nothing(self.recipe),
            sorted((entry.role, entry.name, entry.sha256) for entry in self.inputs),
            self.device.split(":")[0],
            self.threads,
        )
        return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()

    def input(self, role: str, name: str) -> Input:
        """The pinned input of that role and name.

        Raises:
            KeyError: the plan has none; a fault of the program, not of a person.
        """
        for entry in self.inputs:
            if (entry.role, entry.name) == (role, name):
                return entry
        raise KeyError((role, name))


def _named_nothing(recipe: Recipe) -> dict[str, Any]:
    """The recipe without its words; keys of tables sorted. Margins are in, so that none can be slipped in later.

    Without margins there is no key for them: plans from before there were any keep their fingerprints.
    """
    plain = msgspec.structs.replace(recipe, name="", description="")
    out: dict[str, Any] = msgspec.to_builtins(plain, order="deterministic")
    if not out["evaluate"].get("margins"):
        out["evaluate"].pop("margins", None)
    return out
