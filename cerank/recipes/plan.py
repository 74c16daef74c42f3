"""A plan: the complete recipe with every path resolved and every input hashed; its fingerprint identifies the run."""

from __future__ import annotations

import itertools

import msgspec

from cerank.core.decode import fields_of
from cerank.files.hashing import HashedFile, sha256_json
from cerank.recipes.schema import MEANT_BY_DEFAULT, Recipe, Stage
from cerank.registry import Extension

PLAN_FORMAT = 1


class Input(msgspec.Struct, frozen=True, order=True):
    """Something a run reads, pinned by its content."""

    role: str  # "base", "baseline", "dataset", "first_stage", "teacher"
    name: str  # as the recipe names it
    sha256: str
    location: str = ""  # a path or hub id; "" where the name says it all. Not part of the fingerprint
    notes: tuple[str, ...] = ()  # what was left out or decided when it was opened. Not part of the fingerprint


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to know, frozen before it starts."""

    format: int = PLAN_FORMAT
    recipe: Recipe
    inputs: tuple[Input, ...]
    device: str  # "cpu", "cuda" for any GPU, "cuda:0" for a certain one, "mps"
    devices: tuple[str, ...] = ()  # one process on each; () is one process on `device`. Not part of the fingerprint
    # shards of a step at most, whose gradients are added in an order that the number of devices does not change; 0: the
    # steps are not divided, and the run stays on one device
    step_shards: int = 0
    threads: int  # CPU threads of the model; part of the identity, for they move scores by some 1e-8
    cache: str  # folder of indexes and built datasets; may be emptied at any time
    label: str = ""  # the user's label; text, never a path
    created: str = ""  # UTC, ISO 8601
    versions: dict[str, str] = {}
    measures: dict[str, tuple[str, ...]] = {}  # test -> its own measures, where the recipe says "auto"
    extensions: tuple[Extension, ...] = ()  # what the run uses that does not come with cerank
    hashed: tuple[HashedFile, ...] = ()  # files behind the inputs, which the worker hashes again only if they changed
    reasons: dict[str, str] = {}  # setting that the recipe left to the device -> what was chosen, and why
    shares: bool = False  # a stage that another run of the lab finished is reused; set for runs of a matrix

    def measures_on(self, test: str) -> tuple[str, ...]:
        """Return the measures of a test dataset."""
        return self.measures.get(test, self.recipe.evaluate.measures)

    @property
    def requested_recipe(self) -> Recipe:
        """Return the recipe of this plan, with "auto" where the plan has each test's own measures in its place.

        What all tests begin with goes before "auto", what else they share behind it, so that each has its own order.
        """
        if not self.measures:
            return self.recipe
        own = list(self.measures.values())
        first = [names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, zip(*own, strict=False))]
        rest = [name for name in max(own, key=len) if name not in first and all(name in names for names in own)]
        evaluate = msgspec.structs.replace(self.recipe.evaluate, measures=(*first, "auto", *rest))
        return msgspec.structs.replace(self.recipe, evaluate=evaluate)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 (64 hex digits) of what decides numbers: recipe, inputs, extensions, device kind, threads.

        Of the recipe only what differs from the defaults counts, so that a release which adds a setting leaves the
        identity of earlier runs as it was. Margins are in, so that none can be slipped in later.
        """
        parts = (
            self.format,
            without_defaults(msgspec.structs.replace(self.recipe, name="", description="")),
            sorted((entry.role, entry.name, entry.sha256) for entry in self.inputs),
            self.device.split(":")[0],
            self.threads,
            *([self.measures] if self.measures else []),
            *([("step shards", self.step_shards)] if self.step_shards else []),
            *self.extension_hashes(),
        )
        return sha256_json(parts)

    def extension_hashes(self, *names: tuple[str, str]) -> list[tuple[str, str, str]]:
        """Return (kind, name, code hash) of the extensions that decide numbers: all, or those of (kind, name)."""
        return [
            (extension.kind, extension.name, extension.sha256)
            for extension in self.extensions
            if extension.kind != "executor" and (not names or (extension.kind, extension.name) in names)
        ]

    def input(self, role: str, name: str) -> Input:
        """Return the hashed input of that role and name.

        Raises:
            KeyError: the plan has no such input, which is an internal error.
        """
        for entry in self.inputs:
            if (entry.role, entry.name) == (role, name):
                return entry
        raise KeyError((role, name))


def without_defaults(value: object) -> object:
    """Return `value` without fields that hold their defaults, so that new fields of a release change no hash."""
    if isinstance(value, msgspec.Struct):
        given = {field.name: (getattr(value, field.name), _default(field)) for field in fields_of(type(value))}
        meant = MEANT_BY_DEFAULT if isinstance(value, Stage) else {}
        return {
            name: without_defaults(item)
            for name, (item, default) in given.items()
            if item not in (default, meant.get(name, default))
        }
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(without_defaults(item) for item in value)
    return value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
