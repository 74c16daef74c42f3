"""`python -m cerank.executors.probe FOLDER`: looks at the machine that an executor chose, and writes what it found.

It runs for some seconds, and leaves `answer.json` in the folder, which is in the lab: without it, the lab is not seen.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

import cerank
from cerank.errors import CerankError
from cerank.executors.on_node import computing_code
from cerank.files import disk, json_records, lease_files
from cerank.machine import devices
from cerank.machine.process_environment import inherited_environment
from cerank.models.bases import BASES, is_on_this_machine

SIZE = 64 << 20  # bytes written and read to measure the lab's disk


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe found on a node."""

    host: str
    python: str
    cerank: str
    code: str  # hash of the computing code
    versions: dict[str, str] = {}
    processor: str = ""
    cores: int = 0
    devices: tuple[str, ...] = ()
    driver: str = ""
    torch_cuda: str = ""  # version of CUDA that torch was built for; "" without
    gpu_works: bool | None = None  # whether a product on the GPU was right; None without a GPU
    gpu_error: str = ""
    bases: tuple[str, ...] = ()  # bases that are on the node
    skew: float = 0.0  # seconds that the node's clock is ahead of the file server's
    written: float = 0.0  # bytes a second to the lab's disk
    read: float = 0.0
    free: int = 0  # bytes of the lab's disk
    error: str = ""  # why the lab could not be written to


def probe(folder: Path) -> ProbeAnswer:
    """Return what this machine is like, and how fast the disk of `folder` is."""
    names = ("torch", "transformers", "tokenizers", "numpy", "peft")
    versions = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    detected = [device for device in devices.detect_devices(os.environ) if device.kind == "cuda"]
    works, gpu_error, torch_cuda = _gpu_check() if detected else (None, "", devices.torch_cuda_version() or "")
    written, read, error = _disk_speed(folder)
    return ProbeAnswer(
        host=socket.gethostname(),
        python=platform.python_version(),
        cerank=cerank.__version__,
        code=computing_code(),
        versions=versions,
        processor=devices.cpu_model() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        devices=tuple(f"{device.name} {device.model}".strip() for device in detected),
        driver=devices.driver_version(),
        torch_cuda=torch_cuda,
        gpu_works=works,
        gpu_error=gpu_error,
        bases=tuple(name for name, base in BASES.items() if is_on_this_machine(base)),
        skew=-lease_files.clock_offset(folder),
        written=written,
        read=read,
        free=shutil.disk_usage(folder).free,
        error=error,
    )


def _gpu_check() -> tuple[bool, str, str]:
    """Return whether torch computes on the GPU, why not, and the version of CUDA that it was built for.

    Another Python computes, because this package does not import torch, and a broken driver may end its process.
    """
    import subprocess

    code = (
        "import torch; a = torch.ones(256, 256, device='cuda'); "
        "assert float((a @ a).sum()) == 256.0 ** 3; print(torch.version.cuda)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=inherited_environment(os.environ),
    )
    built = devices.torch_cuda_version() or ""
    if done.returncode:
        return False, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300], built
    return True, "", done.stdout.strip() or built


def _disk_speed(folder: Path) -> tuple[float, float, str]:
    """Return bytes a second written to and read from the folder's disk, and why it cannot be written to."""
    path, data = folder / f"speed-{os.getpid()}", os.urandom(1 << 20)
    try:
        began = time.monotonic()
        disk.write(path, data * (SIZE // len(data)))  # it is on the disk when this returns
        written = SIZE / max(time.monotonic() - began, 1e-6)
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else the cache would be measured
            began = time.monotonic()
            while file.read(1 << 22):
                pass
            read = SIZE / max(time.monotonic() - began, 1e-6)
        disk.remove(path)
    except (OSError, CerankError) as error:
        return 0.0, 0.0, str(error)
    return written, read, ""


def main() -> int:
    """Look at this machine and write the answer into the folder that the only argument names."""
    folder = Path(sys.argv[1])
    if not folder.is_dir():
        print(f"{folder} is not seen from {socket.gethostname()}")  # noqa: T201 - its stdout is the job's log
        return 2
    json_records.save(folder / "answer.json", probe(folder))
    print(f"the answer is in {folder}")  # noqa: T201 - its stdout is the job's log
    return 0


if __name__ == "__main__":
    sys.exit(main())
