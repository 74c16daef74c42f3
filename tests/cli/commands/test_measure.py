"""The options of `cerank rerank` that are refused before anything is loaded."""

from __future__ import annotations

import pytest

from cerank.cli.commands.measure import rerank
from cerank.errors import CerankError, UsageError


def asked(tmp_path, precision):
    rerank(str(tmp_path), "bm25", str(tmp_path / "none"), tmp_path / "out.run", precision=precision, lab=str(tmp_path))


def test_an_unknown_precision_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="no precision is called 'int8'") as caught:
        asked(tmp_path, "int8")
    assert caught.value.hint == "fp32, bf16 or auto"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_each_precision_of_recipes_is_taken(tmp_path, precision):
    with pytest.raises(CerankError) as caught:  # of the dataset, which comes after
        asked(tmp_path, precision)
    assert "no precision" not in str(caught.value)
