"""The dashboard over a lab on another machine: gray with words while it is not reached, and back by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from cerank.app.over_ssh.lab_access import LabAccess, LookedAt
from cerank.app.over_ssh.lab_files import FileSet
from cerank.runs.layout import RunFolder
from cerank.tui.app import CerankApp
from cerank.tui.runs.run_screen import RunScreen
from tests.tui.conftest import drawn, look, press, settle, text_of
from tests.tui.labs import LabFolder

ADDRESS = "ssh://node/shared/lab"


class FarLab(LabAccess):
    """A lab that is on this machine and behaves as if it were not."""

    is_remote = True
    dropped = ""
    title = ADDRESS
    folder_there = "/shared/lab"

    def __init__(self, folder: LabFolder) -> None:
        super().__init__(folder.lab)
        self.followed: set[str] = set()
        self.brought: list[tuple[str, FileSet]] = []
        self.targets: list[str] = []
        self.stopped: list[str] = []

    def poll(self, again: Collection[str] = (), followed: Collection[str] = ()) -> LookedAt:
        self.followed = set(followed)
        looked = super().poll(again)
        return LookedAt(looked.entries, looked.devices, self.dropped)

    def bring(self, names: Collection[str], file_set: FileSet) -> None:
        self.brought += [(name, file_set) for name in names]

    def bring_targets(self, targets: Sequence[str]) -> None:
        self.targets += targets

    def refusal(self, what: str) -> str:
        return f"{what} of {ADDRESS} is not here"

    def stop(self, folder: RunFolder) -> None:
        self.stopped.append(folder.name)


@pytest.fixture
def far(folder: LabFolder) -> FarLab:
    return FarLab(folder)


def is_gray(app: CerankApp) -> bool:
    """Whether nothing on the screen has a color, as it is sent to the terminal."""
    colors = set()
    for strip in drawn(app):
        for segment in strip:
            style = segment.style
            colors |= {color.get_truecolor() for color in (style.color, style.bgcolor) if color} if style else set()
    return all(color.red == color.green == color.blue for color in colors)


async def test_the_screen_is_gray_with_words_while_the_lab_is_not_reached_and_comes_back(
    folder: LabFolder, far: FarLab
) -> None:
    folder.run("first")
    app = CerankApp(far.lab, poll_seconds=0, access=far)
    async with app.run_test(size=(150, 30)) as pilot:
        await look(pilot)
        assert ADDRESS in text_of(app)
        assert not is_gray(app)
        far.dropped = "node is not reached: no route to host"
        await look(pilot)
        assert far.dropped in text_of(app)
        assert "first" in text_of(app)
        assert is_gray(app)
        await press(pilot, "enter")
        assert is_gray(app)  # a screen that is opened meanwhile, too
        far.dropped = ""
        await look(pilot)
        assert "no route" not in text_of(app)
        assert not is_gray(app)


@pytest.mark.slow
async def test_files_come_for_the_screens_that_show_them_and_a_refused_key_says_so(
    folder: LabFolder, far: FarLab
) -> None:
    runs = [folder.finished(folder.run(label)) for label in ("first", "second")]
    live = folder.running(folder.run("third"))
    app = CerankApp(far.lab, poll_seconds=0, access=far)
    async with app.run_test(size=(150, 40)) as pilot:
        await look(pilot)
        assert far.followed == set()
        await press(pilot, "enter")
        assert far.followed == {live.name}
        assert far.brought == []
        app.open_run(runs[0].name)
        await look(pilot)
        await press(pilot, "4")
        assert far.brought == [(runs[0].name, "results")]
        await press(pilot, "escape", "s", "y")
        assert far.stopped == [live.name]
        await press(pilot, "B")
        assert isinstance(app.screen, RunScreen)  # no lab book is opened
        app.open_compare([run.name for run in runs])
        await settle(pilot)
        assert len(far.targets) == 2
