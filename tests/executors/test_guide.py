"""The guide on clusters is true: its settings are read, and every option of Slurm is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.executors import choice
from cerank.executors.slurm_script import SlurmOptions
from cerank.settings import Flags, resolve
from tests.documents import DOCUMENTS, blocks

TABLES = blocks(DOCUMENTS["clusters"], "toml")


@pytest.mark.parametrize("text", TABLES)
def test_settings_of_the_guide_make_an_executor(text: str, tmp_path: Path) -> None:
    (tmp_path / "cerank.toml").write_text(text)
    settings = resolve(Flags(), {}, tmp_path).settings
    (name,) = settings.executors
    executor = choice.find(settings, name)
    assert executor is not None
    assert executor.name == name


def test_every_option_of_slurm_is_in_the_guide() -> None:
    missing = [name for name in SlurmOptions.__struct_fields__ if f"`{name}`" not in DOCUMENTS["clusters"]]
    assert missing == ["kind"]  # shown in a block
    assert 'kind = "slurm"' in DOCUMENTS["clusters"]
