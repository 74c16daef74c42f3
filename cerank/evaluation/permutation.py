"""Sums of per-query differences under random changes of sign: the engine of every randomization test here.

Invariant: all columns of a query change sign together, and the sums are a function of (values, rounds, seed) alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 16  # columns at once: their tables take 29 MB for 6,980 queries


def sums(values: NDArray[np.float64], rounds: int, seed: int) -> NDArray[np.float64]:
    """Return (rounds, columns) sums over queries of (queries, columns) values, each row times a random sign.

    Eight queries at a time: a table holds their signed sums for all 256 patterns, so that a flip of n queries is n / 8
    look-ups. It takes no matrix product, whose threads would stand in each other's way on a shared machine.
    """
    groups = -(-values.shape[0] // 8)
    random = np.random.default_rng(seed)
    draws = random.integers(0, 256, (groups, rounds), dtype=np.uint8)
    padded = np.zeros((groups * 8, values.shape[1]))
    padded[: values.shape[0]] = values
    out = np.zeros((rounds, values.shape[1]))
    for first in range(0, values.shape[1], _COLUMNS):
        tables = _tables(padded[:, first : first + _COLUMNS])
        for group in range(groups):
            out[:, first : first + _COLUMNS] += tables[group][draws[group]]
    return out


def all_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (2^queries, columns) sums under every pattern of signs; for few queries."""
    flips = np.arange(2 ** values.shape[0])
    out = np.zeros((flips.size, values.shape[1]))
    for place, row in enumerate(values):
        out += (1 - 2 * ((flips >> place) & 1))[:, None] * row
    return out


def _tables(padded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (groups, 256, columns): for eight rows after another, the sum under each pattern of their signs."""
    blocks = padded.reshape(-1, 8, padded.shape[1])
    tables = np.zeros((blocks.shape[0], 1, padded.shape[1]))
    for place in range(8):
        row = blocks[:, place : place + 1, :]
        tables = np.concatenate([tables + row, tables - row], axis=1)
    return tables
