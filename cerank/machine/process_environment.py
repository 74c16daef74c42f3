"""The environment of the processes that cerank starts: what is passed on, and what is pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "SLURM_JOB_ID",
    "CERANK_NO_FLOCK",
    "CERANK_DEVICES",
    # which instructions torch and NumPy may use: other ones give other last digits
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
)
# no NVIDIA_ or SLURM_ here: NVIDIA_API_KEY and SLURM_JWT are tokens
_PASSED_PREFIXES = ("LC_", "MKL_", "OPENBLAS_", "KMP_", "ONEDNN_", "DNNL_")
_PASSED_DATA = ("IR_DATASETS_HOME", "IR_DATASETS_TMP", "HF_HOME", "HF_HUB_CACHE")


def passed(given: Mapping[str, str]) -> dict[str, str]:
    """What a background process may see of the environment: a list of names, so that no token reaches it."""
    names = {*_PASSED, *_PASSED_DATA}
    kept = {key: value for key, value in given.items() if key in names or key.startswith(_PASSED_PREFIXES)}
    # a worker runs in its run's folder, where a relative path would mean another place
    return kept | {key: str(Path(kept[key]).expanduser().resolve()) for key in _PASSED_DATA if kept.get(key)}


def pinned(threads: int) -> dict[str, str]:
    """What is set for a worker, whatever stood in the environment."""
    return {
        "OMP_NUM_THREADS": str(threads),
        # threads that wait sleep: two trainings on two cores did 40 pairs/s each so, and 22 spinning; alone 72 and 77
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
