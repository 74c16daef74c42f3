"""Prepare msgspec's struct types before several threads decode them.

msgspec (0.22 and before) takes a struct type apart when it first decodes one, and publishes the description before its
fields are filled in: a second thread that decodes the same type meanwhile follows a null pointer, and the process ends
by a segmentation fault. What is taken apart already is only read.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

import msgspec

_LOCK = threading.Lock()
_prepared: weakref.WeakSet[type] = weakref.WeakSet()


def prepare_struct_types() -> None:
    """Take apart every struct type that is loaded by now; to be called before threads that decode are started.

    A hundred types take some 10 ms, and those of an earlier call nothing.
    """
    with _LOCK:
        for kind in [kind for kind in _subclasses(msgspec.Struct) if kind not in _prepared]:
            # a type whose fields are named for type checkers alone is never decoded
            with contextlib.suppress(NameError, TypeError):
                msgspec.json.Decoder(kind)
            _prepared.add(kind)


def _subclasses(kind: type) -> Iterator[type]:
    subclasses: list[type] = kind.__subclasses__()
    for subclass in subclasses:
        yield subclass
        yield from _subclasses(subclass)
