"""Memory that a model's passes give back and take again, batch after batch.

Invariant: only where it comes from changes, never what is computed in it.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's names for what mallopt sets
_KEPT = 1 << 30  # bytes
_HEAP = 1 << 26  # bytes; of the heaps that threads but the first take from, which are given back whole unless padded
_OLD_LIMIT = 1 << 25  # the most that a glibc before 2.35 takes as the second


def keep_freed() -> bool:
    """Has the C library keep freed memory for the next tensor; False where it is not glibc.

    Else the system takes every large tensor back and clears its pages when the next one touches them, which was a
    fifth of the time of re-ranking in bf16. The process grows no larger by it than it has been.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    kept = mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_TOP_PAD, _HEAP)
    return bool(kept and (mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _OLD_LIMIT)))
