"""Progress as lines: not more often than every so many seconds."""

from __future__ import annotations

import pytest

from cerank.cli import progress_messages
from cerank.cli.progress_messages import ProgressMessages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only entry."""
    now = [100.0]
    monkeypatch.setattr(progress_messages.time, "monotonic", lambda: now[0])
    return now


def test_a_message_is_printed_only_after_the_pause(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    messages = ProgressMessages(10.0)
    for second in (100, 109, 110, 111, 125):
        clock[0] = second
        messages.show(f"at {second}")
    assert capsys.readouterr().err.split() == ["at", "110", "at", "125"]
    assert messages.seconds == 25.0


def test_the_first_message_can_be_printed_at_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    messages = ProgressMessages(10.0, is_first_printed=True)
    messages.show("first")
    messages.show("second")
    assert capsys.readouterr().err == "first\n"


def test_bytes_are_shown_with_and_without_a_known_total(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    ProgressMessages(0.0).show_bytes("x.gz", 50_000_000, 200_000_000)
    ProgressMessages(0.0).show_bytes("x.gz", 50_000_000, 0)
    assert capsys.readouterr().err == "x.gz: 50 of 200 MB (25%)\nx.gz: 50 MB\n"
