"""Makes the README's pictures from the real program over a real lab: `python assets/make.py LAB RUN [RUN...]`.

Each RUN is finished; the first is shown open. The pictures are SVG, as Textual and rich draw them.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from cerank.lab import Lab
from cerank.settings import Flags, resolve

HERE = Path(__file__).parent
SIZE = (120, 36)
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
                await app.workers.wait_for_complete()
            drawn = app.export_screenshot(title="cerank tui")
            plain = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
            plain = re.sub(r"font-family: Fira Code[^;]*", FONTS, plain)
            (HERE / f"{name}.svg").write_text(plain, encoding="utf8")  # no font is fetched to show it

        await pilot.pause(1.0)
        await app.push_screen(RunScreen(home.find(names[0]).name))
        await keep("run")
        await pilot.press("escape")
        await app.push_screen(CompareScreen(home, [f"{names[0]}:first-stage", *names]))
        await keep("compare")


def main() -> None:
    """Makes all of them."""
    lab, *names = sys.argv[1:]
    asyncio.run(pictures(Path(lab), names))


if __name__ == "__main__":
    main()
