"""Kept scores are what was kept, or nothing: whatever was asked for, cut, overwritten or removed."""

from __future__ import annotations

import os
import threading

from cerank.files import disk
from cerank.inference.score_cache import ScoreCache

WANTED = {"q1": ("a", "b"), "q2": ("a",)}
TEXTS = ["one", "two"]
SCORES = {"q1": {"a": 1.5, "b": -0.25}, "q2": {"a": 3.0000000298}}
AS_FLOAT32 = {"q1": {"a": 1.5, "b": -0.25}, "q2": {"a": 3.0}}


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_what_was_kept_is_found_as_float32(tmp_path):
    ScoreCache(tmp_path, ["model"]).put(WANTED, TEXTS, SCORES)
    found = ScoreCache(tmp_path, ["model"]).get(WANTED, TEXTS)
    assert found == AS_FLOAT32
    assert [list(row) for row in found.values()] == [["a", "b"], ["a"]]


def test_nothing_is_found_for_another_chunk_order_text_or_identity(tmp_path):
    kept = ScoreCache(tmp_path, ["model", "texts"])
    kept.put(WANTED, TEXTS, SCORES)
    for wanted in ({"q1": ("b", "a"), "q2": ("a",)}, {"q2": ("a",), "q1": ("a", "b")}, {"q1": ("a", "b", "q2", "a")}):
        assert kept.get(wanted, TEXTS[: len(wanted)]) is None
    assert kept.get(WANTED, ["one", "three"]) is None
    assert ScoreCache(tmp_path, ["model", "text"]).get(WANTED, TEXTS) is None
    assert ScoreCache(tmp_path, ["modeltexts"]).get(WANTED, TEXTS) is None


def test_every_damage_is_noticed_and_moved_aside(tmp_path):
    kept = ScoreCache(tmp_path, ["model"])
    kept.put(WANTED, TEXTS, SCORES)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        assert kept.get(WANTED, TEXTS) is None
        assert not path.exists()
        path.with_name(f"{path.name}.bad").unlink()
    kept.put(WANTED, TEXTS, SCORES)
    assert kept.get(WANTED, TEXTS) == AS_FLOAT32


def test_a_crash_at_any_operation_leaves_the_scores_whole_or_absent(tmp_path):
    class Crash(BaseException):
        pass

    def run(limit):
        seen = 0

        def observer(name, path):
            nonlocal seen
            seen += 1
            if seen > limit:
                raise Crash

        cache = tmp_path / str(limit)
        cache.mkdir()
        try:
            with disk.observe(observer):
                ScoreCache(cache, ["model"]).put(WANTED, TEXTS, SCORES)
        except Crash:
            assert ScoreCache(cache, ["model"]).get(WANTED, TEXTS) in (None, AS_FLOAT32)
            return False
        return True

    assert next(limit for limit in range(100) if run(limit)) > 5


def test_writers_at_once_do_each_other_no_harm(tmp_path):
    kept = [ScoreCache(tmp_path, ["model"]) for _ in range(8)]
    threads = [threading.Thread(target=one.put, args=(WANTED, TEXTS, SCORES)) for one in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(tmp_path)) == 1
    assert kept[0].get(WANTED, TEXTS) == AS_FLOAT32


def test_the_longest_unused_go_first_where_room_is_short(tmp_path):
    kept = ScoreCache(tmp_path, ["model"], limit=44 * 4)
    for number in range(6):
        kept.put({f"q{number}": ("a", "b", "c")}, ["text"], {f"q{number}": {"a": 1.0, "b": 2.0, "c": 3.0}})
        path = max(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        os.utime(path, ns=(number, number))
    assert kept.get({"q0": ("a", "b", "c")}, ["text"])  # used just now
    kept.trim()
    left = [number for number in range(6) if kept.get({f"q{number}": ("a", "b", "c")}, ["text"])]
    assert left == [0, 4, 5]
    kept.trim()
    assert len(files(tmp_path)) == 3


def test_a_cache_that_cannot_be_written_to_stops_nothing(tmp_path):
    (tmp_path / "scores").write_text("a file where the folder would be")
    kept = ScoreCache(tmp_path, ["model"])
    kept.put(WANTED, TEXTS, SCORES)
    assert kept.get(WANTED, TEXTS) is None
    kept.trim()
