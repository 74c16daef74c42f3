from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cerank.errors import ExitCode, MissingError, RunFailedError
from cerank.files import disk, manifests
from cerank.files.hashing import sha256_file
from tests.files.crashes import Crash, crash_points
from tests.refusals import refused


def test_a_write_cut_at_any_operation_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    seen = set()
    for _ in crash_points(lambda: disk.write(path, b"new and longer"), lambda: path.write_bytes(b"old")):
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new and longer"}
    assert sorted(tmp_path.iterdir()) == [path]  # what the kills left behind was replaced by the last write


def test_a_first_write_cut_at_any_operation_leaves_nothing_or_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    seen = {
        path.read_bytes() if path.exists() else None
        for _ in crash_points(lambda: disk.write(path, b"content"), lambda: path.unlink(missing_ok=True))
    }
    assert seen == {None, b"content"}


def test_a_write_is_synced_before_it_gets_its_name_and_the_name_after(tmp_path: Path) -> None:
    names: list[str] = []
    with disk.observe(lambda name, path: names.append(name)):
        disk.write(tmp_path / "a", b"content")
    assert names == ["create", "write", "half", "sync", "rename", "sync-folder"]


def test_a_crash_in_mid_write_leaves_half_of_the_data_in_the_temporary_file_only(tmp_path: Path) -> None:
    def kill(name: str, path: Path) -> None:
        if name == "half":
            raise Crash

    with disk.observe(kill), pytest.raises(Crash):
        disk.write(tmp_path / "a", b"12345678")
    assert (tmp_path / ".a.tmp").read_bytes() == b"1234"
    assert not (tmp_path / "a").exists()


def test_what_is_set_aside_never_takes_a_name_in_use(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with manifests.checksummed_folder(tmp_path / "step-000500"):
            pass
        names.append(disk.quarantine(tmp_path / "step-000500").name)
    assert names == ["step-000500.bad", "step-000500.bad2", "step-000500.bad3"]
    with manifests.checksummed_folder(tmp_path / "step-000500"):  # the name is free again
        pass


def test_removing_a_tree_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "dangling").symlink_to(tmp_path / "nowhere")
    disk.remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_appending_adds_and_truncating_cuts(tmp_path: Path) -> None:
    handle = disk.open_append(tmp_path / "log")
    disk.append(handle, b"one\ntwo\n")
    disk.truncate(handle, 4)
    disk.append(handle, b"three\n")
    disk.sync(handle)
    disk.close(handle)
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"


def test_a_write_into_a_folder_that_is_gone_says_so_and_does_not_bring_it_back(tmp_path: Path) -> None:
    with refused(RunFailedError, "folder-gone"):
        disk.write(tmp_path / "removed" / "a", b"x")
    assert not (tmp_path / "removed").exists()


FULL = """
import resource, sys
from pathlib import Path
from cerank.errors import RunFailedError
from cerank.files import disk, manifests
folder = Path(sys.argv[1])
disk.write(folder / "a", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    disk.write(folder / "a", b"x" * 5000)
except RunFailedError as error:
    print(error.what, error.where, error.hint, error.exit_code, sep="|")
try:
    with manifests.checksummed_folder(folder / "sealed") as temporary:
        disk.write(temporary / "big", b"x" * 5000)
except RunFailedError as error:
    print(error.what)
disk.write(folder / "b", b"small")
"""


def test_a_full_disk_fails_the_run_and_keeps_what_was_complete(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    first, second = done.stdout.splitlines()
    what, where, hint, code = first.split("|")
    assert what == second
    assert where.startswith(str(tmp_path))
    assert hint
    assert int(code) == ExitCode.FAILED
    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "b").read_bytes() == b"small"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_without_space_is_a_full_disk() -> None:
    handle = disk.open_append(Path("/dev/full"))
    with refused(RunFailedError, "disk-full"):
        disk.append(handle, b"x")
    disk.close(handle)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses even root")
def test_a_place_that_may_not_be_written_to_is_a_usage_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(disk.NotWritableError) as caught:
            disk.write(tmp_path / "a", b"x")
        assert caught.value.exit_code == ExitCode.USAGE
        assert caught.value.hint
    else:
        with pytest.raises(RunFailedError):
            disk.write(Path("/proc/a"), b"x")


def test_the_hash_of_a_missing_file_is_a_missing_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        sha256_file(tmp_path / "nothing")
    assert caught.value.where == str(tmp_path / "nothing")
