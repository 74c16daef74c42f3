"""Starts a worker on this machine as a process of its own session: it outlives the terminal that asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from cerank.domain.plan import Plan
from cerank.store import disk
from cerank.store.layout import RunFolder

_PASSED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)
_PASSED_PREFIXES = ("LC_", "XDG_", "NVIDIA_", "MKL_", "OPENBLAS_", "KMP_", "SLURM_")
_PASSED_DATA = ("IR_DATASETS_HOME", "IR_DATASETS_TMP", "HF_HOME", "HF_HUB_CACHE")


def environment(plan: Plan, given: Mapping[str, str]) -> dict[str, str]:
    """What a worker may see of the environment: a list of names, so that no token reaches a log or a model's code.

    The worker never asks the network: what it reads was found and hashed when the plan was made.
    """
    names = {*_PASSED, *_PASSED_DATA}
    kept = {key: value for key, value in given.items() if key in names or key.startswith(_PASSED_PREFIXES)}
    pinned = {
        "OMP_NUM_THREADS": str(plan.threads),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "true" if plan.threads > 1 else "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return kept | pinned


def start(plan: Plan, folder: RunFolder) -> subprocess.Popen[bytes]:
    """Starts a worker on the run and returns at once; its output goes to the run's log.

    Whoever started it may end: the worker is in a session of its own, so that closing the terminal does not reach it.
    """
    log = disk.open_append(folder.log)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "cerank.worker", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log.descriptor,
            stderr=subprocess.STDOUT,
            env=environment(plan, os.environ),
            cwd=folder.path,
            start_new_session=True,
        )
    finally:
        disk.close(log)
