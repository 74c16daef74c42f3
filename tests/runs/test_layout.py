from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cerank.runs.layout import RunFolder, plain_name, slug

names = st.text(max_size=300) | st.text("aA-./_0", max_size=6) | st.text(st.characters(codec="utf-8"), max_size=20)


@given(names)
@example("")
@example("..")
@example("../../etc/passwd")
@example("\x00")
@example("\udcff")
@example("a\n")
def test_a_slug_is_a_plain_file_name_that_escapes_nowhere(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,69}", slug(text))
    assert not slug(text).startswith("-")


@given(names, names)
@example("a/b", "a-b")
@example("A", "a")
@example("a/b", slug("a/b"))
@example("x" * 100, "x" * 101)
@example("é", "e")
@example("", "x")
def test_two_texts_share_a_slug_only_if_they_are_the_same(left: str, right: str) -> None:
    assert (slug(left) == slug(right)) == (left == right)


@given(names, names, names, names)
@example("a.b", "c", "a", "b.c")
def test_two_pairs_of_dataset_and_first_stage_never_share_a_file(a: str, b: str, c: str, d: str) -> None:
    folder = RunFolder(Path("run"))
    assert (folder.ranking("s", a, b) == folder.ranking("s", c, d)) == ((a, b) == (c, d))


@pytest.mark.parametrize("text", ["bm25", "trec-dl-2021", "pydocs_test", "1-contrastive", "splade-pp-ed"])
def test_a_name_that_is_plain_already_is_its_own_slug(text: str) -> None:
    assert slug(text) == text


def test_the_longest_names_fit_a_file_system(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.ranking("s" * 999, "d" * 999, "f" * 999)
    path.parent.mkdir(parents=True)
    path.with_name(f".{path.name}.tmp").write_bytes(b"")


def test_a_stage_folder_counts_from_one_and_its_checkpoints_sort_by_step() -> None:
    folder = RunFolder(Path("runs/r"))
    assert folder.checkpoint(0, "contrastive", 500) == Path("runs/r/stages/1-contrastive/checkpoints/step-000500")
    assert folder.final(1, "distill") == Path("runs/r/stages/2-distill/final")


def test_only_finished_checkpoints_are_listed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.checkpoint_steps(0, "c") == []
    checkpoints = folder.checkpoints(0, "c")
    for name in ("step-000500", "step-000050", "step-1000000", "step-000100.bad", ".step-000700.tmp", "step-x"):
        (checkpoints / name).mkdir(parents=True)
    assert folder.checkpoint_steps(0, "c") == [50, 500, 1_000_000]


def test_attempts_are_counted_by_their_records(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.attempt_numbers() == []
    folder.attempts.mkdir()
    for number in (10, 2, 1):
        folder.attempt(number).touch()
    (folder.attempts / ".11.json.tmp").touch()
    assert folder.attempt_numbers() == [1, 2, 10]


def test_plain_text_is_never_empty() -> None:
    assert plain_name("/") == "x"
    assert plain_name("My Recipe!") == "my-recipe"
