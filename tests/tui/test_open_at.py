"""`cerank tui RUN` opens at the run, and its results begin with the answer in words."""

from __future__ import annotations

import asyncio

from textual.widgets import Static

from cerank.app import Lab
from cerank.app.comparison import run_answer
from cerank.tui.app import CerankApp
from cerank.tui.runs.run_list_screen import RunsScreen
from cerank.tui.runs.run_screen import RunScreen
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan


def test_the_dashboard_opens_at_a_run_with_its_answer_on_the_results_tab(tmp_path):
    plan, settings = small_plan(tmp_path)
    folder = made_run(settings, changed(plan), "one")
    wanted = run_answer.of_run(folder).paragraphs

    async def play() -> str:
        app = CerankApp(Lab(settings), open_at=folder.name)
        async with app.run_test(size=(120, 40)) as pilot:
            for _ in range(400):
                if isinstance(app.screen, RunScreen):
                    break
                await pilot.pause(0.05)
            assert isinstance(app.screen, RunScreen)
            await pilot.press("4")
            for _ in range(400):
                found = list(app.screen.query("#answer").results(Static))
                if found and "worth it?" in str(found[0].content):
                    break
                await pilot.pause(0.05)
            said = str(found[0].content)
            await pilot.press("escape")
            assert isinstance(app.screen, RunsScreen)
            return said

    said = asyncio.run(play())
    assert all(text in said for text in wanted)
