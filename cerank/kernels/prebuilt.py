"""Load flash-attention that somebody else has built, from the Hugging Face hub, where a user names its commit.

The package flash-attn takes half an hour to build for each torch; the hub has builds, which the package `kernels`
loads.
They are foreign code, so nothing is loaded unless CERANK_FLASH_KERNEL names a repository and a commit of it:

    CERANK_FLASH_KERNEL=kernels-community/flash-attn2@<40 hex digits>

A commit's hash is that of its content, so the same name is the same code; it is part of what identifies a score.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

from cerank.errors import UsageError

VARIABLE = "CERANK_FLASH_KERNEL"
_NAME = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})\Z", re.ASCII)
_FUNCTION = "flash_attn_varlen_func"
_NEEDED = {"softmax_scale", "window_size", "deterministic"}  # arguments that every version has of which bits are known


def prebuilt_name() -> str:
    """Return the repository and commit that the environment names; "" where it names none.

    Raises:
        UsageError: it names no commit: a branch's content changes, and scores with it.
    """
    name = os.environ.get(VARIABLE, "").strip()
    if name and not _NAME.match(name):
        hint = f"such as {VARIABLE}=kernels-community/flash-attn2@<the commit's 40 hex digits>"
        raise UsageError(
            f"'{name[:100]}' is no repository with a commit", where=VARIABLE, hint=hint, code="kernel-name"
        )
    return name


@functools.cache
def load_prebuilt(name: str) -> Callable[..., Any]:
    """Return the attention function of a build on the hub, downloaded or from the hub's cache.

    Args:
        name: as `prebuilt_name` returns it.

    Raises:
        UsageError: the package `kernels` is not installed, the build is not there, or has another interface.
    """
    repository, commit = name.split("@")
    try:
        hub = importlib.import_module("kernels")
    except ImportError as error:
        raise UsageError(
            "the package `kernels` is not installed", where=VARIABLE, hint=_INSTALL, code="kernel-package-missing"
        ) from error
    try:
        module = hub.get_kernel(repository, revision=commit)
    except Exception as error:  # whatever a download or a foreign build raises
        fetch = f"from kernels import get_kernel; get_kernel('{repository}', revision='{commit}')"
        what = f"{name} does not load: {type(error).__name__}: {str(error)[:200]}"
        hint = f'runs use no network; fetch it first: python -c "{fetch}"'
        raise UsageError(what, where=VARIABLE, hint=hint, code="kernel-not-loaded") from error
    function: Callable[..., Any] | None = getattr(module, _FUNCTION, None)
    missing = {_FUNCTION} if function is None else _NEEDED - set(inspect.signature(function).parameters)
    if function is None or missing:
        raise UsageError(
            f"{name} has no {', '.join(sorted(missing))}",
            where=VARIABLE,
            hint="take flash-attn2",
            code="kernel-functions",
        )
    return function


_INSTALL = "pip install 'cerank[kernels]'"
