"""Short names of runs: sayable, unique in a lab, fixed, and accepted wherever a run is named."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.errors import UsageError
from cerank.recipes.plan import Plan
from cerank.runs import run_names, run_store, user_labels
from cerank.runs.layout import RunFolder
from cerank.runs.user_labels import UserLabels


def made(lab: Path, plan: Plan, now: datetime, count: int, **changed: str) -> list[RunFolder]:
    plan = msgspec.structs.replace(plan, **changed)
    return [run_store.create(lab, plan, b"", now + timedelta(minutes=minute)) for minute in range(count)]


def test_the_lists_hold_a_hundred_different_plain_words_each() -> None:
    for words in (run_names.ADJECTIVES, run_names.ANIMALS):
        assert len(words) == len(set(words)) == 100
        assert all(re.fullmatch(r"[a-z]{2,8}", word) for word in words)


@given(st.text())
def test_a_name_follows_from_the_id_alone_and_a_pair_is_never_offered_twice(run_id: str) -> None:
    first = list(islice(run_names.name_candidates(run_id), 60))
    assert first == list(islice(run_names.name_candidates(run_id), 60))
    assert len(set(first)) == 60
    assert all(re.fullmatch(r"[a-z]+-[a-z]+", name) for name in first[:50])
    assert first[50:52] == [f"{first[0]}-2", f"{first[0]}-3"]


def test_where_every_pair_is_taken_a_number_is_appended() -> None:
    every = {f"{one}-{other}" for one in run_names.ADJECTIVES for other in run_names.ANIMALS}
    assert re.fullmatch(r"[a-z]+-[a-z]+-2", run_names.choose("a run", every))


def test_runs_of_a_lab_have_different_names_that_are_kept_beside_the_plan(
    tmp_path: Path, plan: Plan, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_names, "ADJECTIVES", ("brisk", "calm"))
    monkeypatch.setattr(run_names, "ANIMALS", ("otter",))
    folders = made(tmp_path, plan, now, 6)
    short = run_store.short_names(tmp_path)
    assert len(set(short.values())) == 6
    assert {"brisk-otter", "calm-otter"} < set(short.values())
    assert all(name.startswith(("brisk-otter", "calm-otter")) for name in short.values())
    assert {run_store.load_plan(folder).fingerprint for folder in folders} == {plan.fingerprint}
    assert all(b"otter" in folder.short_name.read_bytes() for folder in folders)
    assert not any(b"otter" in folder.plan.read_bytes() for folder in folders)


def test_a_run_keeps_its_name_when_others_come_and_go(tmp_path: Path, plan: Plan, now: datetime) -> None:
    folders = made(tmp_path, plan, now, 8)
    before = run_store.short_names(tmp_path)
    run_store.remove(folders[0])
    made(tmp_path, plan, now + timedelta(days=1), 3)
    after = run_store.short_names(tmp_path)
    assert all(after[folder.name] == before[folder.name] for folder in folders[1:])


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"name":"../../x"}', b'{"name":"\x1b[2J"}'])
def test_a_run_without_a_readable_name_gets_one_that_no_other_run_has(
    tmp_path: Path, plan: Plan, now: datetime, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(run_names, "ADJECTIVES", ("brisk",))
    monkeypatch.setattr(run_names, "ANIMALS", ("otter", "heron"))
    monkeypatch.setattr(run_names, "cached_names", {})
    folders = made(tmp_path, plan, now, 4)
    for folder in folders[::2]:
        if content is None:
            folder.short_name.unlink()
        else:
            folder.short_name.write_bytes(content)
    monkeypatch.setattr(run_names, "cached_names", {})
    short = run_store.short_names(tmp_path)
    assert len(set(short.values())) == 4
    assert all(re.fullmatch(r"brisk-(otter|heron)(-\d)?", name) for name in short.values())
    assert run_store.short_names(tmp_path) == short
    assert [run_store.find(tmp_path, short[folder.name]) for folder in folders] == folders


def test_of_two_directories_that_keep_one_name_the_older_has_it(tmp_path: Path, plan: Plan, now: datetime) -> None:
    old, new = made(tmp_path, plan, now, 2)
    run_names.cached_names.clear()
    new.short_name.write_bytes(old.short_name.read_bytes())
    kept = run_store.short_name(old)
    assert b'"' + kept.encode() + b'"' in old.short_name.read_bytes()
    assert run_store.short_name(new) not in {kept, new.name}
    assert run_store.find(tmp_path, kept) == old


def test_a_run_is_found_by_its_short_name_and_by_a_part_of_it(tmp_path: Path, plan: Plan, now: datetime) -> None:
    folders = made(tmp_path, plan, now, 3)
    for folder in folders:
        name = run_store.short_name(folder)
        assert run_store.find(tmp_path, name) == folder
        assert run_store.find(tmp_path, name[:-1]) == folder
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path, run_store.short_name(folders[0])[:-1] + "x")
    assert caught.value.code == "run-not-found"
    assert run_store.short_name(folders[0]) in caught.value.hint


def test_the_whole_label_or_name_of_one_run_wins_over_a_part_of_anothers(
    tmp_path: Path, plan: Plan, now: datetime
) -> None:
    one, other = made(tmp_path, plan, now, 2)
    part = run_store.short_name(one).partition("-")[0]
    user_labels.save(other, UserLabels(label=part))
    assert run_store.find(tmp_path, part) == other
    user_labels.save(other, UserLabels(label=one.name))
    assert run_store.find(tmp_path, one.name) == one


def test_no_new_run_gets_a_name_that_is_a_label_of_an_older_run(tmp_path: Path, plan: Plan, now: datetime) -> None:
    (first,) = made(tmp_path / "a", plan, now, 1)
    name = run_store.short_name(first)
    (older,) = made(tmp_path / "b", plan, now - timedelta(days=1), 1, label=name)
    (newer,) = made(tmp_path / "b", plan, now, 1)
    assert newer.name == first.name  # of which the name follows
    assert run_store.short_name(newer) != name
    assert run_store.find(tmp_path / "b", name) == older


def test_one_runs_name_that_is_anothers_label_is_refused_with_both_ids(
    tmp_path: Path, plan: Plan, now: datetime
) -> None:
    one, other, third = made(tmp_path, plan, now, 3)
    name = run_store.short_name(one)
    user_labels.save(other, UserLabels(label=name))
    with pytest.raises(UsageError) as caught:
        run_store.find(tmp_path, name)
    assert caught.value.code == "run-ambiguous"
    assert one.name in caught.value.hint
    assert other.name in caught.value.hint
    assert third.name not in caught.value.hint


def test_a_run_is_told_with_its_label_beside_its_name(tmp_path: Path, plan: Plan, now: datetime) -> None:
    (plain,) = made(tmp_path, plan, now, 1, label="")
    (labeled,) = made(tmp_path, plan, now, 1, label="first try")
    assert run_store.title(plain) == run_store.short_name(plain)
    assert run_store.title(labeled) == f"{run_store.short_name(labeled)} (first try)"
    run_store.remove(plain)
    assert run_store.short_name(plain) == plain.name
