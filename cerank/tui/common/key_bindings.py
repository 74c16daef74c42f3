"""Every key of the dashboard with the id by which a file may give it another key.

Invariant: the list is read off the screens' own bindings, so that it names no key that is not there.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from textual.binding import Binding
from textual.dom import DOMNode

import cerank.tui
from cerank.errors import UsageError
from cerank.registry import nearest


def all_bindings() -> dict[str, tuple[str, str]]:
    """Return the id of each binding with its keys and what it does; imports every screen."""
    for module in pkgutil.walk_packages(cerank.tui.__path__, "cerank.tui."):
        importlib.import_module(module.name)
    bindings: dict[str, tuple[str, str]] = {}
    for kind in _subclasses(DOMNode):
        if not kind.__module__.startswith("cerank.tui."):
            continue
        for binding in vars(kind).get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id:
                bindings[binding.id] = (binding.key, binding.tooltip or binding.description)
    return dict(sorted(bindings.items()))


def _subclasses(kind: type[DOMNode]) -> set[type[DOMNode]]:
    """Return a class and all classes that are made from it."""
    classes = {kind}
    for child in kind.__subclasses__():
        classes |= _subclasses(child)
    return classes


def check_keys(keys: Mapping[str, str], where: str) -> None:
    """Return if every id is that of a binding, and no binding loses its key to another one of the same part.

    Raises:
        UsageError: with everything that is wrong.
    """
    known = all_bindings()
    mistakes, hint = [], "`cerank tui --keys` lists them"
    unknown = [name for name in keys if name not in known]
    if unknown:
        mistakes.append(f"no key is called {', '.join(unknown)}")
        hint = f"{nearest(unknown[0], known)}; {hint}"
    now = {name: keys.get(name, pressed).split(",") for name, (pressed, _) in known.items()}
    for name, pressed in keys.items():
        part = name.partition(".")[0]
        taken = [
            f"{key} is the key of {other}, too"
            for key in pressed.split(",")
            for other, others in now.items()
            if other != name and other.partition(".")[0] in {part, "app"} and key in others
        ]
        mistakes += taken if name in known else []
    if mistakes:
        raise UsageError("; ".join(mistakes), where=where, hint=hint, code="bad-keys-file")
