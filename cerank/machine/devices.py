"""Find what this machine can run on, without torch: each GPU, the CPU, and which of them a plan may use.

Invariant: nothing here needs a GPU or its libraries; where none answers, there is the CPU.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Return every NVIDIA GPU of the machine in the order of the PCI bus; none where no driver answers.

    A GPU that is divided (MIG) is returned as its instances, each a device of its own, because CUDA computes on one
    instance at a time.
    """
    return _gpus_by_library() or gpus_by_tool()


def _gpus_by_library() -> list[Device]:
    """Ask nvidia-ml-py, if it is installed: takes some milliseconds."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return []
    gpus: list[tuple[str, str]] = []
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError:
        return []
    for index in range(count):
        with contextlib.suppress(nvml.NVMLError):  # one that failed must not hide the others
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            own = (_nvml_text(nvml.nvmlDeviceGetUUID(handle)), _nvml_text(nvml.nvmlDeviceGetName(handle)))
            gpus += _mig_instances(nvml, handle) or [own]
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlShutdown()
    return [Device(f"cuda:{index}", uuid, model) for index, (uuid, model) in enumerate(gpus)]


def _mig_instances(nvml: Any, handle: object) -> list[tuple[str, str]]:
    """Return (UUID, name) of each instance of a divided GPU; [] where it is not divided or does not say."""
    instances = []
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        if nvml.nvmlDeviceGetMigMode(handle)[0]:
            for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                with contextlib.suppress(nvml.NVMLError):  # numbers without an instance are errors
                    instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                    instances.append(
                        (_nvml_text(nvml.nvmlDeviceGetUUID(instance)), _nvml_text(nvml.nvmlDeviceGetName(instance)))
                    )
    return instances


def _nvml_text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def driver_version() -> str:
    """Return the version of NVIDIA's driver, from the kernel or from nvidia-ml-py; "" where neither tells it."""
    with contextlib.suppress(OSError):
        match = re.search(r"Kernel Module(?: for \S+)?\s+([0-9.]+)", Path("/proc/driver/nvidia/version").read_text())
        if match:
            return match[1]
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return ""
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlInit()
        return _nvml_text(nvml.nvmlSystemGetDriverVersion())
    return ""


def gpus_by_tool() -> list[Device]:
    """Ask nvidia-smi: takes up to a second. It fails if one GPU does, after it has listed the others."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        output = subprocess.run([tool, "-L"], capture_output=True, errors="replace", timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_nvidia_smi(output)


_GPU_LINE = re.compile(r"GPU \d+: (.+) \(UUID: (GPU-[^)]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (.+?)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


def parse_nvidia_smi(output: str) -> list[Device]:
    """Return the devices that `nvidia-smi -L` lists: instances of divided GPUs, and the GPUs that are not divided."""
    gpus: list[tuple[str, str]] = []
    gpu_model = ""  # model of the GPU whose instances follow
    for line in output.splitlines():
        if match := _GPU_LINE.match(line):
            gpu_model = match[1]
            gpus.append((match[2], match[1]))
        elif match := _MIG_LINE.match(line):
            if gpus and gpus[-1][0].startswith("GPU-") and gpus[-1][1] == gpu_model:
                gpus.pop()  # it is divided
            gpus.append((match[2], f"{gpu_model} MIG {match[1]}"))
    return [Device(f"cuda:{index}", uuid, model) for index, (uuid, model) in enumerate(gpus)]


def visible_gpus(all_gpus: Sequence[Device], allowed: str | None) -> list[Device]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES = `allowed` leaves, numbered as CUDA then does; None allows all.

    As CUDA reads it: numbers or first parts of UUIDs, and what follows an entry that names nothing is ignored. Numbers
    count in the order of the PCI bus, which `pinned_environment` makes CUDA's order, too. An instance of a divided GPU
    is taken at its word: where a container shows nothing else, the driver may not list it.
    """
    if allowed is None:
        return list(all_gpus)
    visible: list[Device] = []
    for word in (part.strip() for part in allowed.split(",")):
        matching = [gpu for gpu in all_gpus if word and (gpu.name == f"cuda:{word}" or gpu.uuid.startswith(word))]
        if not matching and word.startswith("MIG-"):
            matching = [Device("cuda", word, "MIG instance")]
        if len(matching) != 1:
            break
        visible.append(msgspec.structs.replace(matching[0], name=f"cuda:{len(visible)}"))
    return visible


def device_key(name: str, environ: Mapping[str, str]) -> str:
    """Return the key of the device that a process with this environment means by `name`; "cuda" is its first GPU."""
    if not name.startswith("cuda"):
        return name
    first = "cuda:0" if name == "cuda" else name
    known = next((device.key for device in detect_devices(environ) if device.name == first), "")
    if known:
        return known
    # the driver does not list it: two processes that are each shown one GPU both call it "cuda:0"
    words, number = environ.get("CUDA_VISIBLE_DEVICES", "").split(","), first.partition(":")[2]
    word = words[int(number)].strip() if number.isdecimal() and int(number) < len(words) else ""
    return f"cuda:{word}" if word.isdecimal() else word or first


def device_of_process(names: Sequence[str], number: int) -> str:
    """Return the device of a process of a run: its own of a list, else the one of its number on this machine.

    Args:
        names: devices of the run, such as `Plan.devices`; "cuda" is any GPU.
        number: number of the process on this machine, from 0.

    >>> [device_of_process(names, 1) for names in (["cuda:2", "cuda:3"], ["cuda", "cuda"], ["cpu"])]
    ['cuda:3', 'cuda:1', 'cpu']
    """
    name = names[number] if number < len(names) else names[0].partition(":")[0]
    return f"cuda:{number}" if name == "cuda" else name


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
    if not name.startswith("cuda"):
        return
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("torch")
        if version.endswith("+cpu"):
            what = f"torch {version} was built without CUDA, so it cannot use the GPU"
            raise UsageError(what, where="device", hint="install a build of torch for CUDA, or give --device cpu")


def assign(names: Sequence[str], free: Sequence[Device]) -> tuple[Device, ...]:
    """Return a device for each name, the first ones that fit; () where there are not enough.

    >>> gpus = [Device("cuda:0"), Device("cuda:1")]
    >>> [device.name for device in assign(["cuda", "cuda:0"], gpus)], assign(["cuda"] * 3, gpus)
    (['cuda:1', 'cuda:0'], ())
    """
    left, chosen = list(free), dict[int, Device]()
    for place in sorted(range(len(names)), key=lambda place: ":" not in names[place]):  # those with no choice first
        device = next((device for device in left if fits(names[place], device)), None)
        if device is None:
            return ()
        left.remove(device)
        chosen[place] = device
    return tuple(chosen[place] for place in range(len(names)))


def device_environment(name: str, chosen: Sequence[Device], all_devices: Sequence[Device]) -> dict[str, str]:
    """Return the environment in which a worker whose plan names `name` uses some devices.

    A plan for any GPU sees its GPUs alone. A plan for "cuda:N" counts, so it sees all in the order counted here.
    """
    if chosen[0].kind != "cuda":
        return {}
    gpus = list(chosen) if name == "cuda" else [gpu for gpu in all_devices if gpu.kind == "cuda"]
    if not all(gpu.uuid for gpu in gpus):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)}


def resolve_device(name: str) -> str:
    """Return the device that a setting means; see `explain_device`."""
    return explain_device(name)[0]


def explain_device(name: str) -> tuple[str, str]:
    """Return the device that a setting means, and why.

    "auto" is "cuda" where the system has NVIDIA's driver and the installed torch is built for it, else the CPU. It
    never takes "mps": on Apple's GPUs the same plan does not promise the same bits, and no test has compared their
    results with those of a CPU. They have to be asked for.

    "cuda" stays as it is: a worker that is started at once takes the first GPU it sees, and one from the queue sees
    only the GPU that was free. Only "cuda:N" names a certain one.

    It looks for files and tools, because asking torch would cost the commands seconds.
    """
    if name != "auto":
        return name, "as set"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()
    if not (Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None):
        is_apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        why = "Apple's GPU is used only where it is named: --device mps" if is_apple else "there is no NVIDIA driver"
        return "cpu", why
    if not visible or visible.startswith("-"):
        return "cpu", "CUDA_VISIBLE_DEVICES shows no GPU"
    if torch_cuda_version() == "":
        return "cpu", "there is an NVIDIA driver, but this torch is built without CUDA"
    return "cuda", "there is an NVIDIA driver"


def torch_cuda_version() -> str | None:
    """Return the version of CUDA that the installed torch is built for, without importing it.

    "" for a build without CUDA, None where that is not known.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf8")
    except OSError:
        return None
    match = re.search(r"^cuda\b[^=\n]*=\s*(?:None|'([^']*)')", text, re.MULTILINE)
    return (match[1] or "") if match else None


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


def gpu_joules(device: str, environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the joules that the GPU has used since its driver was loaded; None if its driver does not count them.

    Only the difference between two calls has a meaning.
    """
    if not device.startswith("cuda"):
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    key = device_key(device, environ)
    try:
        nvml.nvmlInit()
        if key.startswith(("GPU-", "MIG-")):
            handle = nvml.nvmlDeviceGetHandleByUUID(key)
        else:
            number = key.partition(":")[2]
            handle = nvml.nvmlDeviceGetHandleByIndex(int(number) if number.isdecimal() else 0)
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except (nvml.NVMLError, AttributeError):  # parts of a GPU, and GPUs before Volta, do not count it
        return None


def joules_between(before: float | None, after: float | None) -> float | None:
    """Return the joules used between two readings of `gpu_joules`; None where one of them told nothing."""
    return None if before is None or after is None else after - before
