"""Named things that a recipe or a setting may ask for: built in, or added by an installed extension.

An extension is a module that a distribution names in the entry point group `cerank.extensions`; the decorators of
`cerank.extensions` in it add things under new names. It is imported when a name is asked for that is not built in, or
when all names are listed, so that nothing is loaded for `cerank --help`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cerank.errors import RunFailedError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "cerank.extensions"  # entry point group

_MOST_LISTED = 30  # names that a hint lists whole
_MOST_NEAR = 6  # names that it lists of more

T = TypeVar("T")


class Extension(msgspec.Struct, frozen=True, order=True):
    """Something that does not come with cerank: what it is, which distribution brings it, and the hash of its code."""

    kind: str  # "loss", "sampler of negatives", "format", "first stage", "executor"
    name: str
    distribution: str
    version: str
    sha256: str  # hash of the Python files of the module or package that the entry point names

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.distribution} {self.version}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a wrong name: the nearest known one, or all of them."""
    names = sorted(known)
    if close := nearest_name(name, names):
        return f"did you mean '{close}'?"
    if len(names) <= _MOST_LISTED:
        return f"known: {', '.join(names)}"
    some = get_close_matches(name, names, n=_MOST_NEAR, cutoff=0.0)
    return f"the nearest of {len(names)}: {', '.join(some)}"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that a wrong one is most like, "" where it is like none."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return next(iter(close), "") or next((each for each in names if _initials(each) == name.lower()), "")


def _initials(name: str) -> str:
    """Return the first letters of a name's words, "" for one word: users write lr for learning_rate."""
    words = [word for word in re.split(r"[_-]", name) if word]
    return "".join(word[0].lower() for word in words) if len(words) > 1 else ""


class Registry(Mapping[str, T]):
    """A read-only mapping that fills by decoration and rejects unknown names with a hint.

    Args:
        kind: what it holds, for errors and plans, such as "loss".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._extensions: dict[str, Extension] = {}
        _REGISTRIES.setdefault(kind, self)

    def add(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its target under `name`.

        Raises:
            ValueError: the name is taken; an internal error, or one of an extension.
        """

        def enter(item: T) -> T:
            if name in self._items:
                raise ValueError(f"two {self.kind} entries are called '{name}'")
            self._items[name] = item
            if _LOADER.source is not None:
                self._extensions[name] = msgspec.structs.replace(_LOADER.source, kind=self.kind, name=name)
            return item

        return enter

    def find(self, name: str, where: str = "") -> T:
        """Return the item called `name`.

        Raises:
            UsageError: there is none; the hint names the nearest.
        """
        if name not in self:
            raise UsageError(
                f"no {self.kind} is called '{name}'", where=where, hint=nearest(name, self), code="not-registered"
            )
        return self._items[name]

    def extension(self, name: str) -> Extension | None:
        """Return where the item called `name` comes from; None for what comes with cerank, or is not there."""
        return self._extensions.get(name) if name in self else None

    def __contains__(self, name: object) -> bool:
        if name not in self._items:
            _LOADER.load()
        return name in self._items

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise KeyError(name)
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        _LOADER.load()
        return iter(self._items)

    def __len__(self) -> int:
        _LOADER.load()
        return len(self._items)


_REGISTRIES: dict[str, Registry[Any]] = {}


class _Loader:
    """Imports each extension once; `source` says which one is being imported."""

    def __init__(self) -> None:
        self._is_loaded = False
        self.source: Extension | None = None

    def load(self) -> None:
        """Import all extensions; one that fails is left out with a warning, and its names are unknown."""
        if self._is_loaded:
            return
        self._is_loaded = True
        from importlib.metadata import entry_points

        for point in sorted(entry_points(group=GROUP), key=lambda point: (point.value, point.name)):
            try:
                self.source = _source_of(point)
                point.load()
            except Exception as error:  # noqa: BLE001 - the code of others: whatever it raises, cerank goes on without it
                what = f"the cerank extension {point.value} is not used: {type(error).__name__}: {error}"
                warnings.warn(what, stacklevel=2)
            finally:
                self.source = None


_LOADER = _Loader()


def _source_of(point: EntryPoint) -> Extension:
    """Return the distribution behind an entry point and the hash of its code, without a kind and a name yet."""
    from importlib.util import find_spec

    spec = find_spec(point.module.partition(".")[0])
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise ModuleNotFoundError(f"no module named '{point.module}'")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(path.relative_to(folder), path) for folder in folders for path in sorted(folder.rglob("*.py"))]
    digest = hashlib.sha256()
    for name, path in files or [(Path(spec.name), Path(str(spec.origin)))]:
        digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    distribution = point.dist
    release = (distribution.name, distribution.version) if distribution else ("", "")
    return Extension("", "", *release, digest.hexdigest())


def check_extensions(planned: Sequence[Extension]) -> None:
    """Return if all extensions of a plan are installed with the code that the plan was made with.

    Raises:
        RunFailedError: one is missing, or its code is another.
    """
    for extension in planned:
        registry = _REGISTRIES.get(extension.kind)
        if registry is None:
            _LOADER.load()  # which imports the module of the registry
            registry = _REGISTRIES.get(extension.kind)
        installed = registry.extension(extension.name) if registry is not None else None
        if installed is None or installed.sha256 != extension.sha256:
            state = "is not installed" if installed is None else f"has other code, {installed.sha256[:12]}"
            hint = f"install {extension.distribution} {extension.version} as it was, or start a new run"
            what = f"the {extension} {state}; the plan was made with {extension.sha256[:12]}"
            raise RunFailedError(what, where="extensions", hint=hint, code="extension-not-installed")
