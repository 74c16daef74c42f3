"""`refused`: a block that ends with an error of cerank, recognized by its code and values and not by its wording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from cerank.errors import CerankError

Refusal = TypeVar("Refusal", bound=CerankError)


@contextmanager
def refused(kind: type[Refusal], code: str, *values: object) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """Expect an error of this class and code.

    Args:
        kind: its class.
        code: its code, which stays when the wording changes.
        values: what its text must name, each as a whole word: a file, a line, a key, an id, a number; no wording.
    """
    with pytest.raises(kind) as caught:
        yield caught
    text = str(caught.value)
    assert caught.value.code == code, text
    missing = [value for value in map(str, values) if not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text)]
    assert not missing, f"the error does not name {missing}: {text}"
