"""The README's pictures show the program of today: labels, tabs, headings and keys are those that it draws now.

A test that fails here says that a picture is out of date: `python assets/make.py` makes all of them again.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Footer

from cerank.tui.app import CerankApp
from cerank.tui.common.row_list import RowList
from cerank.tui.comparison.compare_screen import CompareScreen
from cerank.tui.new_run.form_pages import STEPS
from cerank.tui.new_run.new_run_screen import NewRunScreen
from cerank.tui.runs.run_screen import TABS, RunScreen
from cerank.tui.runs.run_table import COLUMNS
from tests.tui.conftest import settle
from tests.tui.labs import LabFolder, made_collection

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SIZE = (120, 36)
AGAIN = "python assets/make.py"
HREF = "href"
CELL = 12.2  # the width of a character in a picture


def frames(name: str) -> dict[str, str]:
    """Return the text of each frame of a picture, line by line, under the frame's title."""
    root = ElementTree.parse(ASSETS / f"{name}.svg").getroot()
    local = {element: element.tag.rpartition("}")[2] for element in root.iter()}
    groups = [group for group in root.iter() if group.get("class") == "f"]
    if not groups:
        return {name: _text([element for element in root.iter() if local[element] == "text"])}
    shared = {group.get("id"): list(group) for group in root.iter() if re.fullmatch(r"l\d+", group.get("id", ""))}
    found = {}
    for number, group in enumerate(groups):
        title = next(element.text for element in group if element.get("class") == "t")
        drawn = [element for use in group.iter() if local[use] == "use" for element in shared[use.get(HREF)[1:]]]
        found[f"{number} {title}"] = _text([element for element in drawn if local[element] == "text"])
    return found


def _text(elements: list[ElementTree.Element]) -> str:
    """Return drawn texts as lines, each text at its column; what is only space is not drawn."""
    lines: dict[float, str] = {}
    for element in sorted(elements, key=lambda one: (float(one.get("y", "0")), float(one.get("x", "0")))):
        line = lines.get(float(element.get("y", "0")), "")
        column = round(float(element.get("x", "0")) / CELL)
        lines[float(element.get("y", "0"))] = line.ljust(column) + (element.text or "").replace("\u00a0", " ")
    return "\n".join(lines.values())


def the_frame(word: str, name: str = "run") -> str:
    """Return the text of the last frame whose title holds `word`."""
    return next(text for title, text in reversed(frames(name).items()) if word in title)


def words(text: str) -> list[str]:
    return re.findall(r"[\w@.?%/-]+", text)


def keys_of(app: CerankApp) -> list[str]:
    """Return the words of the footer as it is drawn now."""
    footer = app.screen.query_one(Footer)
    strips = app.screen._compositor.render_strips(app.screen.size)
    return words(strips[footer.region.y].text)


def headings_of(app: CerankApp) -> list[str]:
    tables = [str(column.label).strip() for table in app.screen.query(DataTable) for column in table.columns.values()]
    return tables + [column.heading for rows in app.screen.query(RowList) for column in rows.row_columns]


@pytest.fixture
def finished(folder: LabFolder, tmp_path: Path) -> str:
    """A finished run of two stages, by name."""
    made = folder.started(folder.run("baseline", test=[str(made_collection(tmp_path))]), 100, stage=1)
    return folder.finished(made).name


async def test_the_list_of_runs(app: CerankApp, finished: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        picture = the_frame("launched")
        assert words(picture)[-len(keys_of(app)) :] == keys_of(app), AGAIN
        always = {"state", "run", "recipe", "seed", "age"}  # other columns are shown where a run has something in them
        assert always <= {column.key for column in COLUMNS}
        assert all(re.search(rf"\b{key}\b", picture) for key in always), AGAIN


@pytest.mark.parametrize(("step", "title"), enumerate(("its base model", "its recipe", "its work"), 1))
async def test_the_form_of_a_new_run(app: CerankApp, folder: LabFolder, step: int, title: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await app.push_screen(NewRunScreen(folder.lab))
        await settle(pilot)
        await pilot.press(str(step if step < 3 else 4))
        await settle(pilot)
        picture = the_frame(title)
        assert words(picture)[-len(keys_of(app)) :] == keys_of(app), AGAIN
        assert all(name in picture for name in STEPS), AGAIN


async def test_a_finished_run(app: CerankApp, finished: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await app.push_screen(RunScreen(finished))
        await settle(pilot)
        picture = the_frame("finished")
        assert words(picture)[-len(keys_of(app)) :] == keys_of(app), AGAIN
        assert all(f"{place} {name}" in picture for place, name in enumerate(TABS, 1)), AGAIN


async def _compared(app: CerankApp, pilot: Pilot[str], finished: str) -> None:
    await app.push_screen(CompareScreen(app.lab, [f"{finished}:contrastive", finished]))
    await settle(pilot)


async def test_the_comparison(app: CerankApp, finished: str) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await _compared(app, pilot, finished)
        for picture in (the_frame("worth it"), frames("compare")["compare"]):
            assert words(picture)[-len(keys_of(app)) :] == keys_of(app), AGAIN
            shown = set(words(picture))
            assert [one for text in headings_of(app) for one in words(text) if one not in shown] == [], AGAIN


def test_the_first_picture_moves_from_an_empty_lab_to_a_verdict() -> None:
    titles = list(frames("run"))
    assert "an empty lab" in titles[0]
    assert "was the second stage worth it?" in titles[-1]
    assert re.search(r"better|worse|equivalent|negligible|cannot tell", list(frames("run").values())[-1])
    assert sum("training" in title for title in titles) >= 3
    svg = (ASSETS / "run.svg").read_text(encoding="utf8")
    for number in range(len(titles)):
        assert f"@keyframes k{number}{{" in svg
    assert len(svg) < 1_500_000


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_runs_nothing_fetches_nothing_and_names_no_folder_of_this_machine(path: Path) -> None:
    svg = path.read_text(encoding="utf8")
    assert "<script" not in svg
    assert not re.search(r"""(?:href|src)=["'](?!#)|url\((?!#)|@import""", svg)
    assert not re.search(r"/tmp/|/home/|/root/", svg)
