"""Makes the README's pictures from the real program over a real lab: `python assets/make.py LAB RUN [RUN...]`.

Each RUN is finished; the first is shown open. The pictures are SVG, as Textual and rich draw them.
`python assets/make.py --path FOLDER` draws the screens that tests/tui/test_path.py kept there (CERANK_PATH_FRAMES).
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from pathlib import Path

from rich.terminal_theme import TerminalTheme

from cerank.lab import Lab
from cerank.settings import Flags, resolve

HERE = Path(__file__).parent
SIZE = (120, 36)
_ANSI = [(16, 20, 26), (255, 122, 69), (44, 194, 149), (240, 228, 66), (86, 180, 233), (204, 121, 167), (86, 180, 233)]
_GROUND = TerminalTheme((16, 20, 26), (228, 231, 235), [*_ANSI, (228, 231, 235)])
FONTS = "font-family: Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace, Apple Braille, Segoe UI Symbol"


async def pictures(lab: Path, names: list[str]) -> None:
    """The dashboard: one run's curves, a comparison."""
    from cerank.tui.app import CerankApp
    from cerank.tui.screens.compare import CompareScreen
    from cerank.tui.screens.run import RunScreen

    settings = resolve(Flags(lab=str(lab)), {}, Path.cwd()).settings
    home = Lab(settings)
    app = CerankApp(home)
    async with app.run_test(size=SIZE) as pilot:

        async def keep(name: str) -> None:
            for _ in range(20):  # looks are a second apart, and what they find is read in threads
                await pilot.pause(0.25)
                while app.is_at_work:
                    await pilot.pause(0.05)
            _write(name, app.export_screenshot(title="cerank tui"))

        await pilot.pause(1.0)
        await keep("runs")
        await app.push_screen(RunScreen(home.find(names[0]).name))
        await keep("run")
        await pilot.press("escape")
        await app.push_screen(CompareScreen(home, [f"{names[0]}:first-stage", *names]))
        await keep("compare")


def path_pictures(folder: Path) -> None:
    """The screens of a person's path, as a terminal held them."""
    from rich.console import Console
    from rich.text import Text

    for frame in sorted(folder.glob("*.ansi")):
        console = Console(record=True, width=SIZE[0], file=io.StringIO(), force_terminal=True, color_system="truecolor")
        for line in frame.read_text(encoding="utf8").splitlines()[: SIZE[1]]:
            console.print(Text.from_ansi(line), no_wrap=True, crop=True, overflow="ignore")
        _write(f"path-{frame.stem}", console.export_svg(title="cerank tui", theme=_GROUND))


def _write(name: str, drawn: str) -> None:
    plain = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    plain = re.sub(r"font-family: Fira Code[^;]*", FONTS, plain)
    plain = re.sub(
        r"/[^ <]*/(lab\b)", r"~/\1", plain.replace("&#160;", "\u00a0")
    )  # the lab's folder is nobody's business
    (HERE / f"{name}.svg").write_text(plain, encoding="utf8")  # no font is fetched to show it


def main() -> None:
    """Makes all of them."""
    first, *names = sys.argv[1:]
    if first == "--path":
        path_pictures(Path(names[0]))
    else:
        asyncio.run(pictures(Path(first), names))


if __name__ == "__main__":
    main()
