"""Hashes of cerank's own source files: another way to compute may give other bits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cerank

COMPUTATION = "cerank computation"  # what an attempt calls the hash over these among its versions
COMPUTING_PACKAGES = (
    "inference",
    "kernels",
    "models",
    "tokenization",
    "training",
)  # packages whose code decides a stage's bits


def code_sha256(*packages: str) -> str:
    """Return the SHA-256 over cerank's own source files, or over those of some packages: it tells two builds of one
    version apart.
    """
    root = Path(cerank.__file__).parent
    digest = hashlib.sha256()
    for folder in [root / package for package in packages] or [root]:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
