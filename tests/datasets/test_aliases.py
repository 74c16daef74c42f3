from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cerank.datasets import irds
from cerank.datasets.aliases import ALIASES, BEIR, DEV, DL, declared_measures, placed_runs, run_folders
from cerank.datasets.open_datasets import catalog, measures_of, open_dataset
from cerank.errors import MissingError, UsageError
from cerank.evaluation.measures import check
from cerank.retrieval.first_stage import candidates, fingerprint
from tests.refusals import refused


def test_every_short_name_stands_for_an_id_of_the_catalog_with_queries_and_qrels() -> None:
    for entry in ALIASES.values():
        found = irds.catalog_metadata(entry.id)
        assert found.queries > 0
        assert found.documents > 0
        assert found.judgments > 0, entry.name


def test_the_papers_sets_have_the_papers_numbers_of_queries() -> None:
    counts = {
        name: irds.catalog_metadata(ALIASES[name].id).queries for name in ("dl19", "dl20", "dl-hard", "dev-small")
    }
    assert counts == {"dl19": 43, "dl20": 54, "dl-hard": 50, "dev-small": 6980}


def test_no_declared_measure_is_zero_for_every_ranking() -> None:
    for entry in ALIASES.values():
        grade = irds.catalog_metadata(entry.id).largest_grade
        assert check(entry.measures, {"q": {"d": grade}}, entry.name) == entry.measures


def test_measures_follow_the_dataset_and_for_unknown_ones_its_grades() -> None:
    assert declared_measures("dl19", 3) == DL
    assert declared_measures("msmarco-passage/trec-dl-2019/judged[:10]", 3) == DL
    assert declared_measures("dev-small", 1) == DEV
    assert declared_measures("beir/nq", 1) == BEIR
    assert declared_measures("vaswani", 1) == DEV
    assert declared_measures("/some/folder", 3) == DL


def test_short_names_are_in_the_list_of_datasets() -> None:
    assert set(ALIASES) < {entry.name for entry in catalog()}


def test_a_placed_run_is_found_by_short_name_and_by_id_and_plain_before_packed(tmp_path: Path) -> None:
    short, whole = run_folders("dl19", tmp_path)
    assert (short, whole) == run_folders("msmarco-passage/trec-dl-2019/judged", tmp_path)
    for folder, name in ((short, "colbertv2.run"), (short, "colbertv2.run.gz"), (whole, "own.run.gz")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    assert placed_runs("dl19", tmp_path) == {"colbertv2": short / "colbertv2.run", "own": whole / "own.run.gz"}


_LOOK = """
import sys
from pathlib import Path
from cerank.datasets import irds
from cerank.datasets.open_datasets import open_dataset
from cerank.retrieval.first_stage import candidates, fingerprint
from cerank.errors import CerankError
cache = Path(sys.argv[1])
dataset = open_dataset("vaswani[:50]", cache)
print(dataset.runs, dataset.place)
print(candidates(dataset, "colbertv2", 2, cache)[next(iter(dataset.queries))], len(fingerprint(dataset, "colbertv2")))
for work in (
    lambda: candidates(dataset, "tas-b", 2, cache),
    lambda: open_dataset("dl19", cache),
    lambda: irds.check_documents_are_local("msmarco-passage/trec-dl-2020/judged"),
    lambda: irds.check_documents_are_local("vaswani"),
):
    try:
        with irds.offline():
            print(work())
    except CerankError as error:
        print(type(error).__name__, error)
"""


def test_placed_runs_are_first_stages_and_what_is_missing_says_where_it_goes(shared: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(shared / "ir-datasets-home", home, copy_function=shutil.copyfile)
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    placed = tmp_path / "cache" / "runs" / "vaswani" / "colbertv2.run"
    placed.parent.mkdir(parents=True)
    placed.write_text("".join(f"{query} Q0 {doc} 1 {9 - doc} x\n" for query in range(1, 94) for doc in (7, 3)))
    environment = {**os.environ, "IR_DATASETS_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, str(tmp_path / "cache")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"('colbertv2',) {placed.parent}"
    assert lines[1] == "('3', '7') 64"
    assert lines[2].startswith("MissingError no run of tas-b for dataset vaswani[:50] is here (place a TREC run at ")
    assert str(placed.parent / "tas-b.run") in lines[2]
    assert "sebastian-hofstaetter" in lines[2]
    assert lines[3].startswith("MissingError msmarco-passage/trec-dl-2019/judged: not here")
    assert "it comes from http" in lines[3]
    assert lines[4].startswith("MissingError msmarco-passage/trec-dl-2020/judged: not here")
    assert lines[5] == "None"


def test_an_unknown_folder_measures_by_its_own_grades(tmp_path: Path) -> None:
    (tmp_path / "docs.tsv").write_text("d\ta\n")
    (tmp_path / "queries.tsv").write_text("q\ta\n")
    (tmp_path / "qrels").write_text("q 0 d 3\n")
    dataset = open_dataset(str(tmp_path), tmp_path)
    assert measures_of(dataset) == DL
    with refused(UsageError, "first-stage-not-found", "colbertv2") as caught:
        candidates(dataset, "colbertv2", 1, tmp_path)
    assert not isinstance(caught.value, MissingError)
    assert fingerprint(dataset, "bm25")
