from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from cerank.errors import UsageError
from cerank.machine import devices
from cerank.machine.devices import Device

A = Device("cuda:0", "GPU-aa11", "NVIDIA H100 80GB HBM3")
B = Device("cuda:1", "GPU-bb22", "NVIDIA H100 80GB HBM3")
CPU = Device("cpu")


def test_what_nvidia_smi_prints_becomes_devices_and_its_complaints_do_not() -> None:
    told = "GPU-aa11, NVIDIA H100 80GB HBM3\nGPU-bb22, NVIDIA H100 80GB HBM3\n"
    assert devices.parse_nvidia_smi(told) == [A, B]
    assert (
        devices.parse_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n")
        == []
    )
    assert devices.parse_nvidia_smi("") == []


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
    assert devices._gpus_by_tool() == []


def test_a_tool_that_fails_or_talks_nonsense_names_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    tool = tmp_path / "nvidia-smi"
    for script in ("exit 9", "echo No devices were found", "printf '\\377\\376'"):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        assert devices._gpus_by_tool() == []
    tool.write_text("#!/bin/sh\necho 'GPU-aa11, NVIDIA H100 80GB HBM3'\n")
    assert devices._gpus_by_tool() == [A]


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
    assert devices.device_environment("cuda", B, everything) == {"CUDA_VISIBLE_DEVICES": "GPU-bb22"}
    assert devices.device_environment("cuda:1", B, everything) == {"CUDA_VISIBLE_DEVICES": "GPU-aa11,GPU-bb22"}
    assert devices.device_environment("cpu", CPU, everything) == {}


def test_a_gpu_without_uuid_is_left_to_the_given_environment() -> None:
    assert devices.device_environment("cuda", Device("cuda:0"), (Device("cuda:0"), CPU)) == {}
