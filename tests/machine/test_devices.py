from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cerank.errors import UsageError
from cerank.files import lease_files
from cerank.machine import devices
from cerank.machine.devices import Device, gpu_joules
from cerank.machine.process_environment import inherited_environment, pinned_environment

A = Device("cuda:0", "GPU-aa11", "NVIDIA H100 80GB HBM3")
B = Device("cuda:1", "GPU-bb22", "NVIDIA H100 80GB HBM3")
CPU = Device("cpu")


H100 = "NVIDIA H100 80GB HBM3"
LISTED = f"GPU 0: {H100} (UUID: GPU-aa11)\nGPU 1: {H100} (UUID: GPU-bb22)\n"
DIVIDED = (
    f"GPU 0: {H100} (UUID: GPU-aa11)\n"
    "  MIG 3g.40gb     Device  0: (UUID: MIG-c1)\n"
    "  MIG 3g.40gb     Device  1: (UUID: MIG-c2)\n"
    f"GPU 1: {H100} (UUID: GPU-bb22)\n"
)


def test_what_nvidia_smi_prints_becomes_devices_and_its_complaints_do_not() -> None:
    assert devices.parse_nvidia_smi(LISTED) == [A, B]
    complaint = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    assert devices.parse_nvidia_smi(complaint) == []
    assert devices.parse_nvidia_smi("") == []


def test_a_divided_gpu_is_its_instances() -> None:
    assert [(device.name, device.uuid) for device in devices.parse_nvidia_smi(DIVIDED)] == [
        ("cuda:0", "MIG-c1"),
        ("cuda:1", "MIG-c2"),
        ("cuda:2", "GPU-bb22"),
    ]
    assert devices.parse_nvidia_smi(DIVIDED)[0].model == f"{H100} MIG 3g.40gb"


class Nvml:
    """NVIDIA's library on a machine with three GPUs: one is divided, one has fallen off the bus, one is whole."""

    NVMLError = type("NVMLError", (Exception,), {})

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index == 1:
            raise self.NVMLError("GPU is lost")
        return f"GPU-{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:
        return handle.encode()

    def nvmlDeviceGetName(self, handle: str) -> str:
        return f"{H100} MIG 1g.10gb" if handle.startswith("MIG") else H100

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:
        if handle == "GPU-2":
            raise self.NVMLError("Not Supported")
        return 1, 1

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, number: int) -> str:
        if number > 1:
            raise self.NVMLError("Not Found")
        return f"MIG-{number}"


def test_one_bad_gpu_hides_no_other_and_a_divided_one_is_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert [(device.name, device.uuid) for device in devices.detect_gpus()] == [
        ("cuda:0", "MIG-0"),
        ("cuda:1", "MIG-1"),
        ("cuda:2", "GPU-2"),
    ]


def test_an_instance_that_only_the_environment_names_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "detect_gpus", list)
    found = devices.detect_devices({"CUDA_VISIBLE_DEVICES": "MIG-1"})
    assert found[0] == Device("cuda:0", "MIG-1", "MIG instance")


@pytest.mark.parametrize(
    ("version", "driver", "visible", "device"),
    [
        ("cuda: Optional[str] = '13.0'\n", True, None, "cuda"),
        ("cuda: Optional[str] = None\n", True, None, "cpu"),  # the driver is there, and torch cannot use it
        ("cuda = None\n", True, None, "cpu"),
        ("", True, None, "cuda"),  # not known, so torch is asked when the run starts
        ("cuda: Optional[str] = '13.0'\n", False, None, "cpu"),
        ("cuda: Optional[str] = '13.0'\n", True, "-1", "cpu"),
    ],
)
def test_auto_is_a_gpu_only_where_the_installed_torch_can_use_it(
    version: str, driver: bool, visible: str | None, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(version)
    origin = str(tmp_path / "torch" / "__init__.py")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: SimpleNamespace(origin=origin))
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/nvidia-smi" if driver else None)
    monkeypatch.setattr(devices.Path, "exists", lambda path: driver and path.name == "nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    chosen, reason = devices.explain_device("auto")
    assert chosen == device
    assert reason
    assert devices.explain_device("cuda:1")[0] == "cuda:1"


def test_processes_count_gpus_as_the_driver_lists_them_and_may_grow_their_memory() -> None:
    assert pinned_environment(1)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert inherited_environment({})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    own = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}
    assert inherited_environment(own)["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"


def test_a_worker_takes_the_lab_for_as_shared_as_the_one_who_started_it() -> None:
    assert inherited_environment({lease_files.SHARED: "1"})[lease_files.SHARED] == "1"


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, ["GPU-aa11", "GPU-bb22"]),
        ("", []),
        ("-1", []),
        ("0,1", ["GPU-aa11", "GPU-bb22"]),
        ("1,0", ["GPU-bb22", "GPU-aa11"]),
        ("1", ["GPU-bb22"]),
        ("GPU-bb", ["GPU-bb22"]),
        ("GPU-", []),  # fits two
        ("0,-1,1", ["GPU-aa11"]),
        ("0, 7", ["GPU-aa11"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(allowed: str | None, expected: list[str]) -> None:
    found = devices.visible_gpus([A, B], allowed)
    assert [gpu.uuid for gpu in found] == expected
    assert [gpu.name for gpu in found] == [f"cuda:{number}" for number in range(len(expected))]


def test_a_machine_without_a_driver_has_its_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Device("cpu") in devices.detect_devices({"CUDA_VISIBLE_DEVICES": ""})
    assert devices.gpus_by_tool() == []


def test_a_tool_that_fails_or_talks_nonsense_names_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    tool = tmp_path / "nvidia-smi"
    for script in ("exit 9", "echo No devices were found", "printf '\\377\\376'"):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        assert devices.gpus_by_tool() == []
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa11)'\nexit 15\n")
    assert devices.gpus_by_tool() == [A]  # it complains of another GPU, and listed this one


@pytest.mark.parametrize(
    ("asked", "fitting"),
    [("cpu", [CPU]), ("cuda", [A, B]), ("cuda:0", [A]), ("cuda:1", [B]), ("cuda:2", []), ("mps", []), ("cud", [])],
)
def test_a_plan_for_cuda_fits_any_gpu_and_one_for_a_number_only_that(asked: str, fitting: list[Device]) -> None:
    assert [device for device in (A, B, CPU) if devices.fits(asked, device)] == fitting


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        devices.check_present(name, (CPU,))
    assert (caught.value.where, "cpu" in caught.value.hint) == ("device", True)


@pytest.mark.parametrize(("version", "is_refused"), [("2.13.0+cpu", True), ("2.13.0+cu130", False), ("2.13.0", False)])
def test_a_gpu_is_refused_where_torch_was_built_without_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str, is_refused: bool
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: version)
    with pytest.raises(UsageError) if is_refused else contextlib.nullcontext():
        devices.check_torch("cuda:0")
    devices.check_torch("cpu")


def test_a_worker_sees_its_gpu_alone_or_all_in_the_order_its_plan_counts() -> None:
    everything = (A, B, CPU)
    assert devices.device_environment("cuda", [B], everything) == {"CUDA_VISIBLE_DEVICES": "GPU-bb22"}
    assert devices.device_environment("cuda:1", [B], everything) == {"CUDA_VISIBLE_DEVICES": "GPU-aa11,GPU-bb22"}
    assert devices.device_environment("cpu", [CPU], everything) == {}


def test_a_gpu_without_uuid_is_left_to_the_given_environment() -> None:
    assert devices.device_environment("cuda", [Device("cuda:0")], (Device("cuda:0"), CPU)) == {}


class Energy(Nvml):
    """A library that counts energy."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle.startswith("MIG"):
            raise self.NVMLError("Not Supported")
        return 1_500


def test_the_energy_of_a_gpu_is_read_where_its_driver_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Energy())
    assert gpu_joules("cuda:2", {}) == 1.5
    assert gpu_joules("cuda:0", {}) is None  # an instance
    assert gpu_joules("cpu", {}) is None
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert gpu_joules("cuda:2", {}) is None
