from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, FormatError, UsageError
from cerank.importing.formats.ranked_runs import name_of
from cerank.importing.import_files import Imported, ImportOptions, import_files
from tests.importing.conftest import scores
from tests.refusals import refused

Import = Callable[..., tuple[Imported, Dataset]]
RUN = "1 Q0 3 2 4.5 t\n2 Q0 6 1 0 t\n1 Q0 5 1 9 t\n1 Q0 4 3 4.5 t\n"


def _parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    polars.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def test_a_run_need_not_be_sorted_and_ranks_decide_between_equal_scores(imported: Import, collection: Path) -> None:
    found, dataset = imported("run", RUN, "first.run", collection=str(collection))
    assert dict(dataset.run("first").ranking) == {"1": ("5", "3", "4"), "2": ("6",)}
    assert dataset.queries == {"1": "query 1", "2": "query 2"}
    assert dataset.qrels == {"1": {"10": 1}, "2": {"11": 1}}
    assert dict(found.contents.counts) == {"tied scores, separated by the smallest float32 step": 1}


def test_rank_distillms_runs_are_named_after_their_system(tmp_path: Path, collection: Path) -> None:
    path = tmp_path / "__rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged.run.gz"
    path.write_bytes(gzip.compress(RUN.encode()))
    import_files("rank-distillm", [path], tmp_path / "out", ImportOptions(collection=str(collection)))
    assert open_dataset(str(tmp_path / "out"), tmp_path).runs == ("rankzephyr-colbert-10000-sampled-100",)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.run", "a"), ("__x__y.parquet", "x"), ("__x.run.gz", "__x"), ("a b/../c.tsv", "c"), ("..run", "")],
)
def test_no_file_name_makes_a_run_that_leaves_its_folder(file: str, name: str) -> None:
    if name:
        assert name_of(Path(file)) == name
    else:
        with pytest.raises(UsageError):
            name_of(Path("-"))


@pytest.mark.parametrize("kind", [str, int])
@pytest.mark.parametrize("names", [("query_id", "doc_id"), ("qid", "docno")])
def test_parquet_is_read_with_either_names_and_either_kind_of_id(
    imported: Import, collection: Path, kind: type, names: tuple[str, str]
) -> None:
    columns = {names[0]: [kind(1), kind(1), kind(2)], names[1]: [kind(3), kind(4), kind(5)], "score": [1.5, 2.5, -1.0]}
    _, dataset = imported("rank-distillm", _parquet(**columns, more=[1, 2, 3]), "a.parquet", collection=str(collection))
    assert scores(dataset, "a") == {"1": {"4": 2.5, "3": 1.5}, "2": {"5": -1.0}}


def test_parquet_without_scores_is_ordered_by_rank(imported: Import, collection: Path) -> None:
    data = _parquet(query_id=["1", "1", "1"], doc_id=["3", "4", "5"], rank=[3, 1, 2])
    found, dataset = imported("rank-distillm", data, "a.parquet", collection=str(collection))
    assert scores(dataset, "a") == {"1": {"4": 3.0, "5": 2.0, "3": 1.0}}
    assert dict(found.contents.counts) == {"rows ordered by their rank, for the file has no scores": 3}


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"query_id": ["1"], "score": [1.0]}, "wrong-columns doc_id"),
        ({"query_id": ["1"], "qid": ["1"], "doc_id": ["1"], "score": [1.0]}, "wrong-columns query_id"),
        ({"query_id": ["1"], "doc_id": ["1"]}, "scores-missing"),
        ({"query_id": [1.5], "doc_id": ["1"], "score": [1.0]}, "column-type query_id"),
        ({"query_id": ["1"], "doc_id": ["1"], "score": ["x"]}, "column-type"),
        ({"query_id": ["1", "1"], "doc_id": ["1", None], "score": [1.0, 2.0]}, "value-missing a.parquet:2"),
        ({"query_id": ["1"], "doc_id": ["1"], "score": [float("nan")]}, "score-not-finite a.parquet:1"),
        ({"query_id": ["1"], "doc_id": ["a b"], "score": [1.0]}, "id-with-white-space a.parquet:1"),
    ],
)
def test_parquet_of_another_shape_is_refused(
    imported: Import, collection: Path, columns: dict[str, object], what: str
) -> None:
    with refused(FormatError, *what.split()):
        imported("rank-distillm", _parquet(**columns), "a.parquet", collection=str(collection))


def test_parquet_that_ends_the_process_which_decodes_it_is_refused_and_the_next_file_is_read(
    imported: Import, collection: Path
) -> None:
    data = (Path(__file__).parent / "aborts.parquet").read_bytes()  # a page asks polars 1 for 2**61 bytes
    with refused(FormatError, "invalid-parquet", 6):
        imported("rank-distillm", data, "a.parquet", collection=str(collection))
    sound = _parquet(query_id=["1"], doc_id=["3"], score=[1.5])
    _, dataset = imported("rank-distillm", sound, "b.parquet", collection=str(collection))
    assert scores(dataset, "b") == {"1": {"3": 1.5}}


def test_damaged_parquet_is_refused(imported: Import, collection: Path) -> None:
    data = _parquet(query_id=["1"] * 50, doc_id=[str(n) for n in range(50)], score=[float(n) for n in range(50)])
    for number, bad in enumerate((data[:-9], data[: len(data) // 2], b"PAR1", b"PAR1" + b"\xff" * 90 + b"PAR1")):
        with refused(CerankError, "invalid-parquet"):
            imported("run", bad, f"bad{number}.parquet", collection=str(collection))


def test_a_depth_keeps_the_best_and_counts_the_rest(imported: Import, collection: Path) -> None:
    found, dataset = imported("run", RUN, "a.run", collection=str(collection), depth=2)
    assert dict(dataset.run("a").ranking) == {"1": ("5", "3"), "2": ("6",)}
    assert dict(found.contents.counts)["candidates beyond the depth, dropped"] == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 Q0 2 1 0.5 t\n1 Q0 2 1 0.5\n", "column-count a.run:2 5"),
        ("1 Q0 2 1 0.5 t\n1 Q0 3 1 1_0 t\n", "score-not-finite 1_0 a.run:2"),
        ("1 Q0 2 1 -inf t\n", "score-not-finite -inf a.run:1"),
        ("1 Q0 2\u00a03 1 1 t\n", "unusual-white-space a.run:1"),
        (
            "1 Q0 2 1 -3.4028234e38 t\n1 Q0 3 1 -3.4028234663852886e38 t\n1 Q0 4 1 -3.4028234663852886e38 t\n",
            "score-not-finite a.run:1 -3.4028234e+38",
        ),
    ],
)
def test_malformed_runs_are_refused(imported: Import, collection: Path, text: str, what: str) -> None:
    with refused(FormatError, *what.split()):
        imported("run", text, "a.run", collection=str(collection))


def test_several_runs_come_into_one_folder_and_two_of_one_name_do_not(tmp_path: Path, collection: Path) -> None:
    for name in ("a.run", "b.run"):
        (tmp_path / name).write_text(RUN)
    files, choices = [tmp_path / "a.run", tmp_path / "b.run"], ImportOptions(collection=str(collection))
    import_files("run", files, tmp_path / "out", choices)
    assert set(open_dataset(str(tmp_path / "out"), tmp_path).runs) == {"a", "b"}
    for bad, name in (([files[0], files[0]], ""), (files, "x")):
        choices = ImportOptions(collection=str(collection), name=name)
        with refused(UsageError, "run-name-twice"):
            import_files("run", bad, tmp_path / "other", choices)


def test_a_real_run_is_imported_over_its_real_collection(shared: Path, tmp_path: Path) -> None:
    folder = shared / "trec-dl-2020-top100"
    choices = ImportOptions(collection=str(folder), name="colbertv2")
    run = next((folder / "runs-deep").glob("*covered-top100.run*"))
    import_files("colbertv2-run", [run], tmp_path / "out", choices)
    dataset, original = open_dataset(str(tmp_path / "out"), tmp_path), open_dataset(str(folder), tmp_path)
    assert dataset.qrels == original.qrels
    ranking = dataset.run("colbertv2").ranking
    assert len(ranking) == 54
    assert all(document in dataset.documents for query in ranking for document in ranking[query])
    assert set(original.runs) <= set(dataset.runs)
