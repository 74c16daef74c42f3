import msgspec
import pytest

from cerank.errors import FormatError
from cerank.recipes.matrix_schema import MatrixCell, MatrixRecord
from cerank.runs.declared_records import MATRICES


def record(name="ecir2025", **changes):
    cells = (MatrixCell(run="one", recipe="cl", base="minilm", seed=42),)
    found = MatrixRecord(
        name=name,
        sha256="0" * 64,
        baseline="cl",
        tests=("dl20",),
        first_stages=("bm25",),
        depth=100,
        measures={"dl20": ("nDCG@10", "AP(rel=2)")},
        cells=cells,
    )
    return msgspec.structs.replace(found, **changes)


def test_a_matrix_is_read_back_as_it_was_kept(tmp_path):
    MATRICES.save(tmp_path, record())
    assert MATRICES.load_if_there(tmp_path, "ecir2025") == record()


def test_names_that_no_file_could_have_are_kept_apart(tmp_path):
    for name in ("a/b", "a b", "../a"):
        MATRICES.save(tmp_path, record(name))
        assert MATRICES.load_if_there(tmp_path, name) == record(name)
    assert all(path.parent == tmp_path / "matrices" for path in tmp_path.rglob("*.json"))


def test_a_lab_without_the_matrix_has_no_record_of_it(tmp_path):
    MATRICES.save(tmp_path, record())
    assert MATRICES.load_if_there(tmp_path, "ecir2052") is None


def test_a_damaged_record_is_named_and_no_other_is_lost(tmp_path):
    MATRICES.save(tmp_path, record())
    (tmp_path / "matrices" / "bad.json").write_text("{")
    assert MATRICES.load_if_there(tmp_path, "ecir2025") == record()
    with pytest.raises(FormatError) as caught:
        MATRICES.load_if_there(tmp_path, "bad")
    assert caught.value.where.startswith(str(tmp_path / "matrices" / "bad.json"))


def test_a_record_of_a_later_release_is_refused(tmp_path):
    MATRICES.save(tmp_path, record(format=99))
    with pytest.raises(FormatError) as caught:
        MATRICES.load_if_there(tmp_path, "ecir2025")
    assert caught.value.code == "later-release"
