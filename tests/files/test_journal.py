from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.errors import RunFailedError
from cerank.files import disk, journal
from cerank.files.disk import DamagedError
from cerank.files.journal import Journal, Tail
from cerank.runs.layout import ReadingRow
from tests.files.crashes import crash_points
from tests.refusals import refused
from tests.work import steps_of


def reading(step: int, loss: float = 0.5) -> StepMetrics:
    return StepMetrics(
        stage=0, step=step, loss=loss, learning_rate=1e-5, grad_norm=1.25, groups=4, pairs=32, seconds=0.1
    )


def event(text: str) -> Event:
    return Event("note", text, "2026-11-23T10:43:31+00:00")


def wrote(path: Path, *rows: ReadingRow) -> None:
    out: Journal[ReadingRow] = Journal(path, ReadingRow)
    with out:
        for row in rows:
            out.append(row)


def read(path: Path) -> list[ReadingRow]:
    return journal.read(path, ReadingRow)


def test_rows_of_both_kinds_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows: list[ReadingRow] = [reading(1, 0.1 + 0.2), Validation(0, 1, {"nDCG@10": 1 / 3}), reading(2)]
    wrote(tmp_path / "readings.jsonl", *rows)
    assert read(tmp_path / "readings.jsonl") == rows


def test_a_journal_that_was_never_begun_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing.jsonl") == []
    assert journal.read_valid_rows(tmp_path / "nothing.jsonl", StepMetrics) == ([], [])


@given(st.data())
@settings(max_examples=80)
def test_a_journal_cut_anywhere_keeps_its_whole_rows_and_takes_new_ones(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"
    rows = [event(text) for text in data.draw(st.lists(st.text(st.characters(codec="utf-8")), max_size=8))]
    with Journal(path, Event) as out:
        for row in rows:
            out.append(row)
    content = path.read_bytes()
    size = data.draw(st.integers(0, len(content)))
    garbage = data.draw(st.sampled_from([b"", b"\0" * 40, b"\0" * 40 + b"\n", b'{"kind":"no', b"\xff\xfe\n"]))
    path.write_bytes(content[:size] + garbage)
    whole = rows[: content[:size].count(b"\n")]
    if size == 0 or content[size - 1 : size] == b"\n":  # else the garbage makes one line with the torn row
        assert journal.read(path, Event) == whole
    with Journal(path, Event) as out:
        out.append(event("after"))
    assert journal.read(path, Event) == [*whole, event("after")]


def test_a_journal_cut_at_any_disk_operation_keeps_every_row_before_and_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    sizes = set()
    for _ in crash_points(lambda: wrote(path, reading(1), reading(2)), lambda: path.unlink(missing_ok=True)):
        before = read(path)
        assert before == [reading(1), reading(2)][: len(before)]
        wrote(path, reading(9))
        assert read(path) == [*before, reading(9)]
        sizes.add(len(before))
    assert sizes == {0, 1, 2}


def test_a_broken_row_in_the_middle_is_named_by_its_line_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    wrote(path, reading(1), reading(2), reading(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"type":"step","stage":\n' + lines[2])
    with pytest.raises(DamagedError) as caught:
        read(path)
    assert caught.value.where == f"{path}:2"
    good, damage = journal.read_valid_rows(path, StepMetrics)
    assert good == [reading(1), reading(3)]
    assert len(damage) == 1
    assert damage[0].startswith(f"{path}:2: ")


def test_opening_alone_cuts_an_unfinished_last_row(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    wrote(path, reading(1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    wrote(path)
    assert path.read_bytes() == whole


def test_opening_never_cuts_a_finished_row_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    wrote(path, reading(1))
    before = path.read_bytes()
    Journal(path, Event).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_say_is_refused_and_leaves_no_trace(tmp_path: Path, value: float) -> None:
    path = tmp_path / "readings.jsonl"
    out: Journal[ReadingRow] = Journal(path, ReadingRow)
    with out:
        with refused(RunFailedError, "value-not-finite"):
            out.append(reading(1, value))
        with refused(RunFailedError, "value-not-finite"):
            out.append(Validation(0, 1, {"nDCG@10": value}))
        out.append(reading(2))
    assert read(path) == [reading(2)]


def test_text_that_utf8_cannot_say_is_written_out_visibly(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Journal(path, Event) as out:
        out.append(event(os.fsdecode(b"no file caf\xe9")))
    assert [row.text for row in journal.read(path, Event)] == ["no file caf\\udce9"]


def test_line_feeds_and_controls_in_a_text_stay_within_their_row(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    texts = ["a\nb\r\n\u2028c", "\x00\x1b[2J", '"}\n{"', ""]
    with Journal(path, Event) as out:
        for text in texts:
            out.append(event(text))
    assert [row.text for row in journal.read(path, Event)] == texts
    assert path.read_bytes().count(b"\n") == len(texts)


def test_a_row_is_synced_at_most_every_five_seconds_and_when_asked(tmp_path: Path) -> None:
    seconds = 100.0
    syncs: list[float] = []
    out = Journal(tmp_path / "events.jsonl", Event, clock=lambda: seconds)
    with disk.observe(lambda name, path: syncs.append(seconds) if name == "sync" else None):
        for seconds in (100.0, 104.9, 105.0, 105.1, 109.9, 110.5):  # noqa: B007 - the clock reads it
            out.append(event("x"))
        assert syncs == [105.0, 110.5]
        out.sync()
        assert len(syncs) == 3
    out.close()


def test_a_row_that_did_not_fit_is_cut_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    full = True

    def refuse(name: str, path: Path) -> None:
        if full and name == "half":
            raise RunFailedError("no space left")

    with Journal(path, Event) as out:
        out.append(event("one"))
        with disk.observe(refuse):
            with pytest.raises(RunFailedError):
                out.append(event("two"))
            assert journal.read(path, Event) == [event("one")]
            full = False
            out.append(event("three"))
    assert journal.read(path, Event) == [event("one"), event("three")]


def test_a_tail_gives_each_row_once_as_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path, Event)
    assert tail.new() == []
    row = msgspec.json.encode(event("two")) + b"\n"
    with Journal(path, Event) as out:
        out.append(event("one"))
        assert tail.new() == [event("one")]
        assert tail.new() == []
    for cut in range(len(row)):
        with path.open("ab") as file:
            file.write(row[cut : cut + 1])
        assert tail.new() == ([event("two")] if cut == len(row) - 1 else [])
    assert tail.restarts == 0


def test_a_tail_starts_over_when_the_file_is_cut_replaced_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    tail: Tail[ReadingRow] = Tail(path, ReadingRow)
    wrote(path, reading(1), reading(2))
    assert tail.new() == [reading(1), reading(2)]
    os.truncate(path, len(path.read_bytes()) // 2)
    assert tail.new() == [reading(1)]
    assert tail.restarts == 1
    path.rename(tmp_path / "old")
    wrote(path, reading(5), reading(6), reading(7))
    assert tail.new() == [reading(5), reading(6), reading(7)]
    assert tail.restarts == 2
    path.unlink()
    assert tail.new() == []
    assert tail.restarts == 3
    wrote(path, reading(8))
    assert tail.new() == [reading(8)]


def test_a_tail_passes_over_a_broken_row_and_reports_its_line(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    tail: Tail[ReadingRow] = Tail(path, ReadingRow)
    wrote(path, reading(1))
    assert tail.new() == [reading(1)]
    with path.open("ab") as file:
        file.write(b"nonsense\n" + msgspec.json.encode(reading(3)) + b"\n")
    assert tail.new() == [reading(3)]
    assert [message.split(": ")[0] for message in tail.damage] == [f"{path}:2"]


def test_two_rows_glued_into_one_line_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    row = msgspec.json.encode(event("x"))
    path.write_bytes(row + row + b"\n" + row + b"\n")
    with pytest.raises(DamagedError):
        journal.read(path, Event)


def test_a_row_more_costs_the_reader_a_few_steps_however_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "readings.jsonl"
    path.write_bytes((msgspec.json.encode(reading(1)) + b"\n") * 50_000)
    found, steps = steps_of(lambda: read(path))
    assert len(found) == 50_000
    assert steps < 20 * 50_000


class Counting:
    """A file that counts the bytes read from it."""

    bytes_read = 0

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        Counting.bytes_read += len(data)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_a_tail_reads_the_new_row_alone_however_many_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "readings.jsonl"
    path.write_bytes((msgspec.json.encode(reading(1)) + b"\n") * 100_000)
    tail: Tail[ReadingRow] = Tail(path, ReadingRow)
    assert len(tail.new()) == 100_000
    size = path.stat().st_size
    wrote(path, reading(2))
    monkeypatch.setattr(journal, "open_file", lambda path: Counting(path.open("rb")))
    found, steps = steps_of(tail.new)
    assert found == [reading(2)]
    assert Counting.bytes_read == path.stat().st_size - size
    assert steps < 200
