"""What the dashboard remembers between two starts: its theme and columns, and forms that were not launched.

Invariant: these files hold no result. One that is damaged, or of another release, counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import tomllib
from pathlib import Path

import msgspec

from cerank.app.matrix.drafts import Draft
from cerank.errors import CerankError, UsageError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.schema import Recipe


class DashboardState(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of the user that outlive the dashboard."""

    theme: str = ""  # "" takes the one that fits the terminal
    hidden_columns: tuple[str, ...] = ()  # columns hidden in the list of runs
    sort: str = "age"
    is_falling: bool = True
    are_seeds_folded: bool = False  # runs that differ in their seed alone as one row


class SavedDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A form of a new run that was filled in and not launched."""

    draft: Draft
    saved: str  # UTC, ISO 8601
    step: str = "base"  # the page that was open


def state_folder() -> Path:
    """Return the folder of these files, whether it exists or not."""
    import platformdirs

    return platformdirs.user_state_path("cerank")


def load_state() -> DashboardState:
    """Return what was saved last; the defaults where nothing readable is."""
    try:
        return json_records.load_if_there(state_folder() / "dashboard.json", DashboardState) or DashboardState()
    except DamagedError:
        return DashboardState()


def save_state(state: DashboardState) -> None:
    """Save the choices; a disk that refuses only means that they are not remembered."""
    _save(state_folder() / "dashboard.json", state)


def keys_file() -> Path:
    """Return the file in which the user gives keys of the dashboard other keys, whether it exists or not."""
    import platformdirs

    return platformdirs.user_config_path("cerank") / "keys.toml"


def load_keys(path: Path) -> dict[str, str]:
    """Return id -> keys, separated by commas, as the user's file has them; empty where there is no file.

    Raises:
        UsageError: the file cannot be read, is no TOML, or gives something else than keys as text.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"the file cannot be read: {error}", where=str(path), code="bad-keys-file") from error
    wrong = [name for name, keys in table.items() if not isinstance(keys, str) or not keys.strip()]
    if wrong:
        hint = 'such as "runs.new" = "ctrl+n"'
        raise UsageError(
            f"{', '.join(wrong)}: keys must be a text in quotes", where=str(path), hint=hint, code="bad-keys-file"
        )
    return {name: ",".join(part.strip() for part in keys.split(",") if part.strip()) for name, keys in table.items()}


def _draft_file(recipe: Recipe | None) -> Path:
    """Return the file of a draft: one for new runs, and one for each recipe that a draft was copied from."""
    if recipe is None:
        return state_folder() / "drafts" / "new.json"
    return state_folder() / "drafts" / f"{hashlib.sha256(msgspec.json.encode(recipe)).hexdigest()[:16]}.json"


def load_draft(recipe: Recipe | None) -> SavedDraft | None:
    """Return the draft of a new run, or of one copied from `recipe`; None where there is none."""
    try:
        return json_records.load_if_there(_draft_file(recipe), SavedDraft)
    except DamagedError:
        return None


def save_draft(recipe: Recipe | None, draft: SavedDraft) -> None:
    """Save a draft, in place of the one before."""
    _save(_draft_file(recipe), draft)


def delete_draft(recipe: Recipe | None) -> None:
    """Delete a draft, if there is one."""
    with contextlib.suppress(CerankError, OSError):
        _draft_file(recipe).unlink(missing_ok=True)


def _save(path: Path, record: msgspec.Struct) -> None:
    with contextlib.suppress(CerankError, OSError):
        disk.make_folder(path.parent)
        json_records.save(path, record)
