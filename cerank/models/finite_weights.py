"""Find weights that are no numbers before a model is loaded: each of its scores would be none, too.

Invariant: torch is not imported, and NumPy only where there is a file to look at; a tensor is mapped into memory.
"""

from __future__ import annotations

import json
from pathlib import Path

from cerank.errors import UsageError, os_error
from cerank.models.preflight import weight_shapes
from cerank.text.safe_text import shown

_TYPES = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # NumPy has no bfloat16: its bits are looked at
_EXPONENT = 0x7F80  # all bits of a bfloat16's exponent: infinite, or no number


def check_finite(folder: Path) -> None:
    """Return if every weight in the folder's safetensors files is a finite number.

    Raises:
        UsageError: one is infinite or no number, or a file is damaged.
    """
    import numpy as np  # the command line imports this module

    for path in sorted(folder.glob("*.safetensors")):
        weight_shapes(path)  # what follows may rely on the header
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                tensors = json.loads(file.read(length))
            for name, entry in tensors.items():
                kind = _TYPES.get(entry.get("dtype", "")) if name != "__metadata__" else None
                first, last = entry.get("data_offsets", (0, 0)) if kind is not None else (0, 0)
                if not 0 <= first <= last:
                    raise ValueError(f"{name}: {first} to {last}")
                if kind is None or first == last:
                    continue
                count = (last - first) // np.dtype(kind).itemsize
                values = np.memmap(path, dtype=kind, mode="r", offset=8 + length + first, shape=(count,))
                is_number = (values & _EXPONENT) != _EXPONENT if entry["dtype"] == "BF16" else np.isfinite(values)
                if not is_number.all():
                    what = f"the model's weights are broken: {shown(name, 80)} holds values that are no finite numbers"
                    hint = "train it again, or take it anew from where it came"
                    raise UsageError(what, where=str(path), hint=hint, code="weights-not-finite")
        except OSError as error:
            raise os_error(error, path) from error
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # offsets that are none
            raise UsageError("the file's header is damaged", where=str(path), code="weights-damaged") from error
