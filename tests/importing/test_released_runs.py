"""Released rankings are found by the names of their files, and an archive's names lead nowhere else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cerank.errors import FormatError, MissingError, UsageError
from cerank.importing.released_runs import FIRST_STAGE, find_runs, open_released
from tests.refusals import refused

RUN = b"q1 Q0 d1 1 2.0 x\n"
DL19 = "msmarco-passage-trec-dl-2019-judged"


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(RUN)
            file.addfile(member, io.BytesIO(RUN))
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"rankzephyr/bm25_{DL19}.run", ("rankzephyr", "bm25", DL19)),
        (f"monoelectra-dual-colbert/colbert_{DL19}.run", ("monoelectra-dual-colbert", "colbert", DL19)),
        (f"msmarco-colbert/{DL19}.run", (FIRST_STAGE, "colbert", DL19)),
        (f"bm25/{DL19}.run", (FIRST_STAGE, "bm25", DL19)),
        ("chatnoir/cranfield.run", (FIRST_STAGE, "bm25", "cranfield")),
        ("monot5-3b/tirex-rerank_nfcorpus-test.run", ("monot5-3b", "bm25", "nfcorpus-test")),
        ("monot5-3b/vaswani.run", ("monot5-3b", "bm25", "vaswani")),
    ],
)
def test_a_file_name_says_model_first_stage_and_dataset(
    name: str, expected: tuple[str, str, str], tmp_path: Path
) -> None:
    (run,) = find_runs(open_released(archive(tmp_path / "experiments.tar.gz", f"experiments/{name}"), tmp_path))
    assert (run.model, run.first_stage, run.dataset) == expected
    assert run.path.name == name.split("/")[1]
    assert run.path.read_bytes() == RUN


def test_an_archive_is_unpacked_once_and_nothing_but_rankings_within_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    archive(path, "../../evil/x.run", "experiments/m/bm25_vaswani.run", "experiments/m/notes.txt", "alone.run")
    folder = open_released(path, tmp_path / "cache")
    assert open_released(path, tmp_path / "cache") == folder
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert files == ["evil/x.run", "m/bm25_vaswani.run"]
    assert not (tmp_path / "evil").exists()
    assert find_runs(folder) == find_runs(folder.parent)  # the folder that holds it will do, too


def test_what_is_no_archive_or_damaged_or_empty_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no archive at all")
    with refused(UsageError, "no-archive", "x.tar.gz"):
        open_released(tmp_path / "x.tar.gz", tmp_path)
    whole = archive(tmp_path / "y.tar.gz", *(f"m/bm25_{number}.run" for number in range(20))).read_bytes()
    (tmp_path / "y.tar.gz").write_bytes(whole[: len(whole) // 2])
    with refused(FormatError, "damaged-archive", "y.tar.gz"):
        open_released(tmp_path / "y.tar.gz", tmp_path)
    (tmp_path / "empty").mkdir()
    with refused(FormatError, "no-records", "empty"):
        find_runs(tmp_path / "empty")
    with refused(MissingError, "folder-missing", "nowhere"):
        find_runs(tmp_path / "nowhere")
