"""Make the README's pictures, and its result, from the real program.

    python assets/make.py                            # all pictures, from a short run made for them
    python assets/make.py --run RUN [--lab FOLDER]   # the result in README.md, from a finished run of a lab

The first picture moves: one SVG file whose frames are switched by CSS, without scripts. Its frames are screens of the
real dashboard at 120 x 36 while a short real run goes on. Every picture is text, and a test compares it with the
program.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
SIZE = (120, 36)
PATIENCE = 600.0  # seconds for anything that is waited for
FONTS = "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace, Apple Braille, Segoe UI Symbol"
TRAINING_FRAMES = 6
SECONDS = {"runs": 1.5, "new run": 2.2, "training": 0.9, "finished": 2.5, "comparison": 5.0}  # that a frame is shown

# Small enough for a minute on two cores, and nothing else differs from the recipe that comes with cerank.
DEMO = """\
extends = "contrastive-then-distill"
name = "two-stages"

[data]
train = "pydocs/train[:100]"
test = ["pydocs/test[:80]"]
depth = 10

[evaluate]
measures = ["nDCG@10"]
margins = { "nDCG@10" = 0.02 }
"""
DEMO_STAGE = """
[stages.{name}]
steps = 36
groups_per_step = 2
window = [1, 10]
validate_every = 12
validation_queries = 16
validation_depth = 10
"""


# --- from a screen to a picture


@dataclass
class Screen:
    """A screen as Textual drew it: a picture of its own, and what the moving picture makes a frame of."""

    title: str
    svg: str

    def rows(self, styles: dict[str, str]) -> dict[int, str]:
        """Return the drawn elements of each line; a style that is met for the first time gets a short name."""
        root = ElementTree.fromstring(self.svg)
        local = dict(re.findall(r"\.[\w-]+-(r\d+) \{ ?(.*?);? ?\}", self.svg))
        lines: dict[int, list[str]] = {}
        for element in root.iter():
            kind = element.tag.rpartition("}")[2]
            name = element.get("class", "").rpartition("-")[2]
            if kind == "rect" and element.get("shape-rendering") == "crispEdges":
                line = round((float(element.get("y", "0")) - 1.5) / 24.4)
                kept = " ".join(f'{key}="{element.get(key)}"' for key in ("fill", "x", "y", "width", "height"))
                lines.setdefault(line, []).append(f"<rect {kept}/>")
            elif kind == "text" and name in local:
                line = round((float(element.get("y", "0")) - 20) / 24.4)
                style = styles.setdefault(local[name], f"s{len(styles)}")
                text = (element.text or "").replace("&", "&amp;").replace("<", "&lt;")
                where = f'x="{element.get("x")}" y="{element.get("y")}" textLength="{element.get("textLength")}"'
                lines.setdefault(line, []).append(f'<text class="{style}" {where}>{text}</text>')
        return {line: "".join(found) for line, found in lines.items()}


@dataclass
class Movie:
    """Screens one after the other as one SVG; a line that several of them have in common is in the file once."""

    styles: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    frames: list[tuple[str, float, list[str]]] = field(default_factory=list)

    def add(self, screen: Screen, seconds: float) -> None:
        """Add a frame, unless it is the one before it again, which is then shown for longer."""
        used = [self.lines.setdefault(text, f"l{len(self.lines)}") for text in screen.rows(self.styles).values()]
        if self.frames and self.frames[-1][2] == used:
            _, before, _ = self.frames.pop()
            seconds += before
        self.frames.append((screen.title, seconds, used))

    def svg(self) -> str:
        """Return the file: without animation, as for those who want less motion, it shows the last frame."""
        width, height = SIZE[0] * 12.2 + 18, SIZE[1] * 24.4 + 50
        total = sum(seconds for _, seconds, _ in self.frames)
        css = [f"text{{font:20px {FONTS};white-space:pre}}.t{{font:bold 18px arial;fill:#c5c8c6;text-anchor:middle}}"]
        css += [f".{name}{{{style}}}" for style, name in self.styles.items()]
        css += [f".f{{visibility:hidden;animation:{total:g}s step-end infinite}}.f:last-of-type{{visibility:visible}}"]
        start = 0.0
        for number, (_, seconds, _) in enumerate(self.frames):
            end = start + seconds
            head = "" if number == 0 else "0%{visibility:hidden}"
            tail = "" if number == len(self.frames) - 1 else f"{100 * end / total:.3f}%,100%{{visibility:hidden}}"
            shown = f"{100 * start / total:.3f}%{{visibility:visible}}"
            css.append(f"@keyframes k{number}{{{head}{shown}{tail}}}#f{number}{{animation-name:k{number}}}")
            start = end
        css.append("@media (prefers-reduced-motion:reduce){.f{animation:none!important}}")
        dots = "".join(f'<circle cx="{x}" cy="18" r="6" fill="{c}"/>' for x, c in zip((26, 46, 66), _DOTS, strict=True))
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">',
            f"<style>{''.join(css)}</style><defs>",
            *(f'<g id="{name}">{text}</g>' for text, name in self.lines.items()),
            f'</defs><rect width="{width:g}" height="{height:g}" rx="8" fill="#10141a" stroke="#444"/>{dots}',
        ]
        for number, (title, _, used) in enumerate(self.frames):
            uses = "".join(f'<use href="#{name}"/>' for name in used)
            parts.append(f'<g class="f" id="f{number}"><text class="t" x="{width / 2:g}" y="25">{title}</text>')
            parts.append(f'<g transform="translate(9,41)">{uses}</g></g>')
        return "\n".join(parts) + "\n</svg>\n"


_DOTS = ("#ff5f57", "#febc2e", "#28c840")


def _write(name: str, svg: str) -> None:
    """Write a picture; it fetches no font, and the folder of the lab is not in it."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: Fira Code[^;]*", f"font-family: {FONTS}", svg)
    path = HERE / f"{name}.svg"
    path.write_text(svg, encoding="utf8")
    print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size / 1024:.0f} KiB", flush=True)


# --- the dashboard, driven by keys


class Camera:
    """Drives the dashboard and takes its screens."""

    def __init__(self, app: Any, pilot: Any) -> None:
        self.app, self.pilot = app, pilot
        self.started = time.monotonic()

    def take(self, title: str) -> Screen:
        """Take the screen as it is now."""
        svg = self.app.export_screenshot(title=f"cerank: {title}")
        return Screen(f"cerank: {title}", svg)

    async def settled(self, title: str, *texts: str) -> Screen:
        """Wait until the screen shows `texts` and two looks at it are the same, then take it."""
        before, deadline = "", time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            await self.pilot.pause(0.4)
            screen = self.take(title)
            text = words_of(screen.svg)
            if screen.svg == before and all(one in text for one in texts):
                print(f"{time.monotonic() - self.started:5.0f} s  {title}", flush=True)
                return screen
            before = screen.svg
        raise TimeoutError(f"{title}: {texts} never came; the screen shows:\n{words_of(before)}")


def words_of(svg: str) -> str:
    """Return the text of a picture, drawn line by line."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for element in ElementTree.fromstring(svg).iter():
        if element.tag.endswith("text") and element.text:
            place = float(element.get("y", "0")), float(element.get("x", "0"))
            lines.setdefault(place[0], []).append((place[1], element.text.replace("\u00a0", " ")))
    return "\n".join(" ".join(text for _, text in sorted(line)) for _, line in sorted(lines.items()))


async def pictures(folder: Path) -> None:
    """Make every picture: a lab is filled by one short run, from the form of a new run to the comparison."""
    from cerank.app import Lab
    from cerank.settings import Flags, resolve
    from cerank.tui.app import CerankApp
    from cerank.tui.new_run.new_run_screen import NewRunScreen
    from cerank.tui.runs.run_screen import RunScreen

    recipe = folder / "two-stages.toml"
    recipe.write_text(DEMO + "".join(DEMO_STAGE.format(name=name) for name in ("contrastive", "distill")))
    given = Flags(lab=str(folder / "lab"), cache=str(folder / "cache"), device="cpu")
    lab = Lab(resolve(given, {}, folder).settings)
    movie = Movie()
    app = CerankApp(lab)
    async with app.run_test(size=SIZE) as pilot:
        camera = Camera(app, pilot)
        movie.add(await camera.settled("an empty lab", "No runs yet"), SECONDS["runs"])
        await app.push_screen(NewRunScreen(lab, recipe=recipe.name))
        movie.add(await camera.settled("a new run: its base model", "minilm"), SECONDS["new run"])
        await pilot.press("2")
        movie.add(await camera.settled("a new run: its recipe", "two-stages"), SECONDS["new run"])
        await pilot.press("4")
        plan = await camera.settled("a new run: its work, and the same as a command", "ready")
        movie.add(plan, SECONDS["new run"])
        _write("new-run", plan.svg)
        await pilot.press("l")
        await camera.settled("a question: start it?", "[y]")
        await pilot.press("y")
        while not lab.listed():
            await pilot.pause(0.2)
        app.clear_notifications()
        movie.add(await camera.settled("launched; it goes on without the dashboard", "two-stages"), SECONDS["runs"])
        (row,) = lab.listed()
        await app.push_screen(RunScreen(row.folder.name))
        for screen in _spread(await _training(camera, lab), TRAINING_FRAMES):
            movie.add(screen, SECONDS["training"])
        curves = await camera.settled("finished")
        movie.add(curves, SECONDS["finished"])
        app.open_compare([f"{row.folder.name}:contrastive", row.folder.name])
        compared = await camera.settled("was the second stage worth it?", "verdict")
        movie.add(compared, SECONDS["comparison"])
        _write("compare", compared.svg)
    _write("run", movie.svg())


async def _training(camera: Camera, lab: Any) -> list[Screen]:
    """Take the run's screen whenever its curves have grown, until the run is over."""
    screens: list[Screen] = []
    before = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        (row,) = lab.listed()
        state = row.status.state
        if state == "finished":
            print(f"{time.monotonic() - camera.started:5.0f} s  training, {len(screens)} screens", flush=True)
            return screens
        if state in {"failed", "damaged", "lost"}:
            raise RuntimeError(f"the run is {state}: {row.status.text}")
        await camera.pilot.pause(1.0)
        screen = camera.take("training")
        curves = words_of(screen.svg).partition("smoothed")[2]  # from the first step on there is something to draw
        if curves and curves != before:
            screens.append(screen)
            before = curves
    raise TimeoutError("the run never finished")


def _spread(screens: list[Screen], count: int) -> list[Screen]:
    """Return `count` screens as far apart as can be, the last one among them."""
    if len(screens) <= count:
        return screens
    return [screens[round((place + 1) * (len(screens) - 1) / count)] for place in range(count)]


def _stop_what_runs(folder: Path) -> None:
    """Stop a run that was left behind by an error, before its folder goes."""
    subprocess.run(
        [sys.executable, "-m", "cerank", "stop", "two-stages", "--wait", "--lab", str(folder / "lab")],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )


# --- the result in the README


def result(run: str, lab: str) -> None:
    """Write the result of a finished run into the README as a terminal of 100 columns shows it: table, cost, answer."""
    shown = _cerank("show", run, *(["--lab", lab] if lab else []), "--format", "table")
    parts = re.split(r"\n\n(?=\S)", shown.strip())
    chosen = [part for part in parts if re.search(r"(?m)^first-stage .* 0\.", part) and "difference" in part]
    chosen += [part for part in parts if part.startswith("Cost")]
    # `show` begins with the answer, which the table of the run follows without an empty line
    answer = [part.partition("\nkey ")[0] for part in parts if "stage worth it?" in part]
    if not (chosen and answer):
        sys.exit(f"{run} has no comparison; is it finished?")
    text = README.read_text(encoding="utf8")
    head, tail = text.index("<!-- result -->") + len("<!-- result -->"), text.index("<!-- /result -->")
    block = "\n\n".join(["\n\n".join(chosen), *answer])
    README.write_text(f"{text[:head]}\n```text\n{block}\n```\n{text[tail:]}", encoding="utf8")
    print(f"README.md: the result of {run}")


def _cerank(*words: str) -> str:
    """Return what a command prints on both streams, in the order of printing, as on a terminal of 100 columns."""
    done = subprocess.run(
        [sys.executable, "-m", "cerank", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def main() -> None:
    """Make what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="RUN", help="a finished run whose result goes into README.md")
    parser.add_argument("--lab", metavar="FOLDER", default="", help="the lab of that run")
    given = parser.parse_args()
    if given.run:
        result(given.run, given.lab)
        return
    os.environ.pop("NO_COLOR", None)
    os.environ.update(COLORTERM="truecolor", TEXTUAL_ANIMATIONS="none")
    with tempfile.TemporaryDirectory(prefix="cerank-pictures-") as name:
        os.environ["CERANK_DEVICES"] = str(Path(name) / "devices")  # it waits for no run of another lab
        os.environ["HOME"], os.environ["CERANK_LAB"] = name, str(Path(name) / "lab")  # pictures show ~/lab
        os.chdir(name)
        try:
            asyncio.run(pictures(Path(name)))
        finally:
            _stop_what_runs(Path(name))
            os.chdir(HERE)
    for old in HERE.glob("*.svg"):
        if old.stem not in {"run", "new-run", "compare"}:
            old.unlink()
            print(f"{old.relative_to(HERE.parent)}: removed")


if __name__ == "__main__":
    main()
