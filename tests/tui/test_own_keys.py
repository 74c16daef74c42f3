"""Keys that the user's file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app import dashboard_state
from cerank.errors import UsageError
from cerank.tui.app import CerankApp
from cerank.tui.common.key_bindings import all_bindings, check_keys
from cerank.tui.new_run.new_run_screen import NewRunScreen
from tests.refusals import refused
from tests.tui.conftest import press, settle


async def test_a_key_of_the_users_file_replaces_that_of_the_dashboard(
    app: CerankApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    dashboard_state.keys_file().parent.mkdir(parents=True)
    dashboard_state.keys_file().write_text('"runs.new" = "ctrl+n, b"\n')
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "n")
        assert not isinstance(app.screen, NewRunScreen)
        await press(pilot, "b")
        assert isinstance(app.screen, NewRunScreen)


def test_every_mistake_in_the_file_of_keys_is_named(tmp_path: Path) -> None:
    with refused(UsageError, "bad-keys-file", "runs.mak", "runs.note"):
        check_keys({"runs.mak": "x", "runs.stop": "t"}, "keys.toml")
    check_keys({"runs.stop": "t", "runs.note": "s"}, "keys.toml")  # exchanged
    path = tmp_path / "keys.toml"
    assert dashboard_state.load_keys(path) == {}
    path.write_text('"runs.new" = 3\n')
    with refused(UsageError, "bad-keys-file", "runs.new"):
        dashboard_state.load_keys(path)
    path.write_text("runs.new =")
    with refused(UsageError, "bad-keys-file", str(path)):
        dashboard_state.load_keys(path)


def test_every_binding_that_has_an_id_is_listed_with_what_it_does() -> None:
    listed = all_bindings()
    assert {"runs.new", "app.help", "grid.resume", "log.wrap", "bars.open"} <= set(listed)
    assert all(keys and does for keys, does in listed.values())
