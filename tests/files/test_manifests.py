from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.errors import RunFailedError
from cerank.files import disk, manifests
from cerank.files.disk import DamagedError
from tests.files.crashes import crash_points
from tests.refusals import refused


def fill(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "more").mkdir()
    (folder / "more" / "position.json").write_bytes(b'{"stage":0,"step":7}')


def seal(final: Path) -> None:
    with manifests.checksummed_folder(final) as folder:
        fill(folder)


def test_a_sealed_folder_cut_at_any_operation_is_absent_or_whole(tmp_path: Path) -> None:
    final = tmp_path / "checkpoints" / "step-000500"
    outcomes = set()
    for _ in crash_points(lambda: seal(final), lambda: disk.remove_tree(final.parent)):
        outcomes.add(final.exists())
        if final.exists():
            manifests.verify_folder(final)
    assert outcomes == {True, False}


def test_a_leftover_of_a_killed_seal_is_replaced(tmp_path: Path) -> None:
    final = tmp_path / "step-000500"
    for _ in crash_points(lambda: seal(final)):
        if final.exists():
            disk.remove_tree(final)
    manifests.verify_folder(final)
    assert list(tmp_path.iterdir()) == [final]


def test_every_file_and_folder_is_synced_before_the_seal_gets_its_name(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    final = tmp_path / "final"
    with disk.observe(lambda name, path: log.append((name, path.name))):
        seal(final)
    renamed = log.index(("rename", "final"))
    for name in ("model.safetensors", "position.json", "COMPLETE.json"):
        assert ("sync", name) in log[:renamed]
    assert ("sync-folder", "more") in log[:renamed]
    assert ("sync-folder", ".final.tmp") in log[:renamed]
    assert log[renamed + 1] == ("sync-folder", tmp_path.name)


def seal_and_fail(final: Path) -> None:
    with manifests.checksummed_folder(final) as folder:
        fill(folder)
        raise ZeroDivisionError


def test_a_failure_inside_a_sealed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        seal_and_fail(tmp_path / "final")
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_folder_does_not_replace_one_that_is_there(tmp_path: Path) -> None:
    seal(tmp_path / "final")
    with refused(RunFailedError, "folder-exists"):
        seal(tmp_path / "final")
    manifests.verify_folder(tmp_path / "final")


def test_a_sealed_folder_of_no_files_verifies(tmp_path: Path) -> None:
    with manifests.checksummed_folder(tmp_path / "final"):
        pass
    manifests.verify_folder(tmp_path / "final")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link(path: Path) -> None:
    copy = path.parent.parent.parent / "copy"
    path.rename(copy)
    path.symlink_to(copy)


@pytest.mark.parametrize("harm", [flip, zero, cut, link, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "more/position.json", "COMPLETE.json"])
def test_a_harmed_file_of_a_sealed_folder_is_named(tmp_path: Path, harm: Callable[[Path], None], name: str) -> None:
    final = tmp_path / "deep" / "final"
    seal(final)
    harm(final / name)
    with pytest.raises(DamagedError) as caught:
        manifests.verify_folder(final)
    if (harm, name) != (flip, "COMPLETE.json"):  # a flipped bit of the list accuses the file whose entry it is in
        assert caught.value.where == str(final / name)


def test_a_file_that_became_a_link_is_not_called_the_manifest(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    seal(final)
    link(final / "model.safetensors")
    with refused(DamagedError, "file-unexpected") as caught:
        manifests.verify_folder(final)
    assert "manifest" not in caught.value.what


def test_a_flipped_bit_in_any_byte_of_the_list_of_files_is_noticed(tmp_path: Path) -> None:
    final = tmp_path / "final"
    seal(final)
    good = (final / "COMPLETE.json").read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        (final / "COMPLETE.json").write_bytes(bad)
        with pytest.raises(DamagedError):
            manifests.verify_folder(final)


def test_an_extra_file_in_a_sealed_folder_is_named(tmp_path: Path) -> None:
    seal(tmp_path / "final")
    (tmp_path / "final" / "more" / "extra").write_text("x")
    with refused(DamagedError, "file-unexpected") as caught:
        manifests.verify_folder(tmp_path / "final")
    assert caught.value.where.endswith("more/extra")
