"""Build the environment of the processes that cerank starts: what they inherit, and what is pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_INHERITED = (
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
    "NVIDIA_VISIBLE_DEVICES",
    "PYTORCH_ALLOC_CONF",
    "NVIDIA_DRIVER_CAPABILITIES",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "SLURM_JOB_ID",
    "CERANK_NO_FLOCK",
    "CERANK_SHARED_LAB",
    "CERANK_DEVICES",
    "CERANK_FLASH_KERNEL",
    # instructions that torch and NumPy may use: other instructions give other last digits
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
)
# no NVIDIA_ or SLURM_ here: NVIDIA_API_KEY and SLURM_JWT are tokens
_INHERITED_PREFIXES = ("LC_", "MKL_", "OPENBLAS_", "KMP_", "ONEDNN_", "DNNL_")
_INHERITED_FOLDERS = ("IR_DATASETS_HOME", "IR_DATASETS_TMP", "HF_HOME", "HF_HUB_CACHE")


CUDA_ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as `devices` counts; CUDA's own order begins with the fastest GPU
}


def inherited_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a background process inherits of the environment: a list of names, so that no token reaches it."""
    names = {*_INHERITED, *_INHERITED_FOLDERS}
    inherited = {key: value for key, value in environ.items() if key in names or key.startswith(_INHERITED_PREFIXES)}
    # a worker runs in its run's folder, where a relative path would name another place
    folders = [key for key in _INHERITED_FOLDERS if inherited.get(key)]
    # rows of tokens have another length at each step: without it memory is cut into pieces that fit none of them
    inherited.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    return inherited | {key: str(Path(inherited[key]).expanduser().resolve()) for key in folders}


def pinned_environment(threads: int) -> dict[str, str]:
    """Return what is set for a worker, whatever the environment held."""
    return {
        "OMP_NUM_THREADS": str(threads),
        # threads that wait sleep: two trainings on two cores did 40 pairs/s each so, and 22 spinning; alone 72 and 77
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **CUDA_ENVIRONMENT,
    }
