"""All randomness is a function of (seed, purpose, indices), so a resume has no generator state to restore."""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, *indices: int | str) -> int:
    """Return a seed in [0, 2**63) for one purpose at one place, independent of every other.

    The purpose keeps two uses at the same step apart ("negatives" and "dropout"); SHA-256 keeps neighboring seeds
    unrelated.
    """
    key = "\x1f".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
