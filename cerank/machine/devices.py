"""What this machine can run on, found without torch: each GPU, the CPU, and which of them a plan fits.

Invariant: nothing here needs a GPU or its libraries; where none answers, there is the CPU.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Device(msgspec.Struct, frozen=True):
    """Something one run at a time may use."""

    name: str  # "cpu", "mps", "cuda:0": N counts what this process may see
    uuid: str = ""  # of a GPU, as CUDA_VISIBLE_DEVICES takes it; "" for others
    model: str = ""  # "NVIDIA H100 80GB HBM3"

    @property
    def kind(self) -> str:
        """Its name without a number."""
        return self.name.partition(":")[0]

    @property
    def key(self) -> str:
        """What stays the same however many devices a process sees."""
        return self.uuid or self.name


def found(environ: Mapping[str, str]) -> tuple[Device, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, MPS on Apple's processors, and always the CPU, last."""
    own = [Device("mps")] if platform.system() == "Darwin" and platform.machine() == "arm64" else []
    return (*visible(gpus(), environ.get("CUDA_VISIBLE_DEVICES")), *own, Device("cpu"))


def gpus() -> list[Device]:
    """Every NVIDIA GPU of the machine in the order of nvidia-smi; none where no driver answers."""
    return _gpus_by_library() or _gpus_by_tool()


def _gpus_by_library() -> list[Device]:
    """By nvidia-ml-py, where it is installed: some milliseconds."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        pairs = [(str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))) for handle in handles]
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return []
    return [Device(f"cuda:{index}", uuid, model) for index, (uuid, model) in enumerate(pairs)]


def _gpus_by_tool() -> list[Device]:
    """By nvidia-smi: up to a second."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, errors="replace", timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parsed(told)


def parsed(told: str) -> list[Device]:
    """The devices in what nvidia-smi prints for uuid and name; a line that names no GPU is left out."""
    rows = [line.partition(",") for line in told.splitlines() if line.startswith(("GPU-", "MIG-"))]
    return [Device(f"cuda:{index}", uuid.strip(), model.strip()) for index, (uuid, _, model) in enumerate(rows)]


def visible(all_gpus: Sequence[Device], allowed: str | None) -> list[Device]:
    """The GPUs that CUDA_VISIBLE_DEVICES = `allowed` leaves, numbered as CUDA then does; None allows all.

    As CUDA reads it: numbers or first parts of UUIDs, and what follows an entry that names nothing is ignored.
    """
    if allowed is None:
        return list(all_gpus)
    kept: list[Device] = []
    for word in (part.strip() for part in allowed.split(",")):
        fitting = [gpu for gpu in all_gpus if word and (gpu.name == f"cuda:{word}" or gpu.uuid.startswith(word))]
        if len(fitting) != 1:
            break
        kept.append(msgspec.structs.replace(fitting[0], name=f"cuda:{len(kept)}"))
    return kept


def fits(asked: str, device: Device) -> bool:
    """Whether a plan's device may be this one: "cuda" takes any GPU, every other name only its own."""
    return asked in {device.name, device.kind}


def environment(asked: str, device: Device, all_devices: Sequence[Device]) -> dict[str, str]:
    """What makes a worker whose plan asks for `asked` use `device`.

    A plan for any GPU sees its GPU alone. A plan for "cuda:N" counts, so it sees all in the order counted here.
    """
    if device.kind != "cuda":
        return {}
    shown = [device] if asked == "cuda" else [gpu for gpu in all_devices if gpu.kind == "cuda"]
    if not all(gpu.uuid for gpu in shown):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in shown)}


def device_named(name: str) -> str:
    """Return the device that a setting means; "auto" is "cuda" where the system shows such a device, else the CPU.

    "auto" never takes "mps": no test has compared results on Apple's GPUs with those on a CPU. It has to be asked for.

    "cuda" stays as it is: a worker that was started at once takes the first GPU it sees, one from the queue is shown
    the GPU that was free. Only "cuda:N" asks for a certain one.

    It looks for the driver's files and tools, for asking torch would cost seconds at the front.
    """
    if name != "auto":
        return name
    has_driver = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()
    return "cuda" if has_driver and visible and not visible.startswith("-") else "cpu"


def physical_cores() -> int:
    """Physical cores this process may run on; logical ones share their arithmetic units and add nothing to it."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    cores = set()
    for cpu in mine:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            return len(mine)
    return max(1, len(cores))
