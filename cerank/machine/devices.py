"""Find what this machine can run on, without torch: each GPU, the CPU, and which of them a plan may use.

Invariant: nothing here needs a GPU or its libraries; where none answers, there is the CPU.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.errors import UsageError


class Device(msgspec.Struct, frozen=True):
    """A device that one run at a time may use."""

    name: str  # "cpu", "mps", "cuda:0": N counts what this process may see
    uuid: str = ""  # UUID of a GPU, as CUDA_VISIBLE_DEVICES takes it; "" for others
    model: str = ""  # such as "NVIDIA H100 80GB HBM3"

    @property
    def kind(self) -> str:
        """Return its name without a number."""
        return self.name.partition(":")[0]

    @property
    def key(self) -> str:
        """Return what stays the same however many devices a process sees: the UUID, or the name without one."""
        return self.uuid or self.name


def detect_devices(environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES allows, MPS on Apple's processors, and always the CPU, last."""
    apple = [Device("mps")] if platform.system() == "Darwin" and platform.machine() == "arm64" else []
    return (*visible_gpus(detect_gpus(), environ.get("CUDA_VISIBLE_DEVICES")), *apple, Device("cpu"))


def detect_gpus() -> list[Device]:
    """Return every NVIDIA GPU of the machine in the order of nvidia-smi; none where no driver answers."""
    return _gpus_by_library() or _gpus_by_tool()


def _gpus_by_library() -> list[Device]:
    """Ask nvidia-ml-py, if it is installed: takes some milliseconds."""
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
    """Ask nvidia-smi: takes up to a second."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, errors="replace", timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_nvidia_smi(output)


def parse_nvidia_smi(output: str) -> list[Device]:
    """Return the devices in what nvidia-smi prints for uuid and name; lines that name no GPU are skipped."""
    rows = [line.partition(",") for line in output.splitlines() if line.startswith(("GPU-", "MIG-"))]
    return [Device(f"cuda:{index}", uuid.strip(), model.strip()) for index, (uuid, _, model) in enumerate(rows)]


def visible_gpus(all_gpus: Sequence[Device], allowed: str | None) -> list[Device]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES = `allowed` leaves, numbered as CUDA then does; None allows all.

    As CUDA reads it: numbers or first parts of UUIDs, and what follows an entry that names nothing is ignored.
    """
    if allowed is None:
        return list(all_gpus)
    visible: list[Device] = []
    for word in (part.strip() for part in allowed.split(",")):
        matching = [gpu for gpu in all_gpus if word and (gpu.name == f"cuda:{word}" or gpu.uuid.startswith(word))]
        if len(matching) != 1:
            break
        visible.append(msgspec.structs.replace(matching[0], name=f"cuda:{len(visible)}"))
    return visible


def fits(name: str, device: Device) -> bool:
    """Return whether a plan's device may be this one: "cuda" takes any GPU, every other name only its own."""
    return name in {device.name, device.kind}


def check_present(name: str, present: Sequence[Device]) -> None:
    """Check that one of the devices is what a plan calls `name`.

    Raises:
        UsageError: none is; the hint names those that are here.
    """
    if not any(fits(name, device) for device in present):
        hint = f"this machine has {', '.join(device.name for device in present)}"
        raise UsageError(f"this machine has no device '{name}'", where="device", hint=hint, code="device-not-found")


def check_torch(name: str) -> None:
    """Check that the installed torch was built for the device, without importing it.

    Raises:
        UsageError: the device is a GPU, and this torch has no CUDA.
    """
    version = _torch_version() if name.startswith("cuda") else ""
    if version.endswith("+cpu"):
        what = f"torch {version} was built without CUDA, so it cannot use the GPU"
        raise UsageError(what, where="device", hint="install a build of torch for CUDA, or give --device cpu")


def _torch_version() -> str:
    """Return the version of the installed torch without importing it; "" if there is none."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def device_environment(name: str, device: Device, all_devices: Sequence[Device]) -> dict[str, str]:
    """Return the environment in which a worker whose plan names `name` uses `device`.

    A plan for any GPU sees its GPU alone. A plan for "cuda:N" counts, so it sees all in the order counted here.
    """
    if device.kind != "cuda":
        return {}
    gpus = [device] if name == "cuda" else [gpu for gpu in all_devices if gpu.kind == "cuda"]
    if not all(gpu.uuid for gpu in gpus):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)}


def resolve_device(name: str) -> str:
    """Return the device that a setting means; "auto" is "cuda" where the system shows such a device, else the CPU.

    "auto" never takes "mps": no test has compared results on Apple's GPUs with those on a CPU. It has to be asked for.

    "cuda" stays as it is: a worker that is started at once takes the first GPU it sees, and one from the queue sees
    only the GPU that was free. Only "cuda:N" names a certain one. "auto" never means "mps": on Apple's GPUs the same
    plan does not promise the same bits, so they are used only where they are named.

    It looks for the driver's files and tools, because asking torch would cost the commands seconds.
    """
    if name != "auto":
        return name
    has_driver = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()
    return "cuda" if has_driver and visible and not visible.startswith("-") else "cpu"


def physical_cores() -> int:
    """Return the number of physical cores this process may run on; logical ones share their units and add nothing."""
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


def cpu_model() -> str:
    """Return the name of the processor's model, as Linux tells it; "" where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
