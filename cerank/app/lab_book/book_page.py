"""A study's lab book as one HTML page that needs nothing else: text, verdicts, plans and figures.

Invariant: all text is escaped, HTML in an entry is shown as text, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path

import cerank
from cerank.app.lab_book.book_entries import body_of, status_of
from cerank.app.report.html import STYLE
from cerank.errors import MissingError
from cerank.files.json_records import timestamp
from cerank.runs import lab_book
from cerank.runs.lab_book import FIGURES, Pin, WrittenEntry
from cerank.text.escapes import html
from cerank.text.safe_text import counted

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_OWN_STYLE = """
article{border-top:2px solid var(--line);margin-top:2rem}section{border-left:3px solid var(--line);margin:1rem 0;
padding-left:1rem}h3{font-size:1rem;margin:.8rem 0 .3rem}pre{overflow-x:auto;background:var(--band);padding:.6rem}
.wrong{color:var(--down);font-weight:600}img{max-width:100%;height:auto;background:#fff}
"""


def page(lab: Path, study: str, now: datetime) -> str:
    """Return the entries of a study, or of all for "", as one page, the oldest first.

    Raises:
        MissingError: there is no entry.
    """
    from markdown_it import MarkdownIt

    entries, problems = lab_book.load_all(lab, study)
    if not entries:
        studies = sorted({written.entry.study for written in lab_book.load_all(lab)[0]})
        hint = (
            f"studies: {', '.join(studies)}" if studies else '`cerank log add "what you found"` writes the first entry'
        )
        where = f"study {study}" if study else str(lab_book.folder_of(lab))
        raise MissingError("the lab book has no entries", where=where, hint=hint, code="empty-log")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    title = f"Lab book: {study}" if study else "Lab book"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html(title)}</title><style>{STYLE}{_OWN_STYLE}</style></head><body>",
        f"<h1>{html(title)}</h1>",
        f'<p class="soft">{counted(len(entries), "entry")}, written by cerank {cerank.__version__} '
        f"at {timestamp(now)}. What a run, plan or figure was when its entry was written stands under its hash.</p>",
    ]
    parts += [_article(lab, written, markdown.render(body_of(written)), is_alone=bool(study)) for written in entries]
    parts += [f'<p class="wrong">{html(problem)}</p>' for problem in problems]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _article(lab: Path, written: WrittenEntry, body: str, *, is_alone: bool) -> str:
    entry = written.entry
    study = "" if is_alone else f", study {html(entry.study)}"
    changed = "" if not written.is_changed else '<p class="wrong">Changed by hand after it was written.</p>'
    pins = "".join(_section(lab, pin) for pin in entry.pins)
    return (
        f'<article id="{html(written.id)}"><h2>{html(entry.title)}</h2><p class="soft">{html(entry.time)}{study}</p>'
        f'{changed}{body}{pins}<p class="soft">Entry SHA-256 <code>{entry.sha256}</code></p></article>'
    )


def _section(lab: Path, pin: Pin) -> str:
    name = f"{pin.short_name} ({pin.name})" if pin.short_name else pin.name
    status = status_of(lab, pin)
    says = "".join(f"<p>{html(words)}</p>" for words in pin.says)
    if pin.kind == "figure":
        data = lab_book.load_figure(lab, pin)
        if data is not None:
            kind = FIGURES[Path(pin.name).suffix.lower()]
            says = f'<img alt="{html(pin.name)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'
    tone = "soft" if status == "as pinned" else "wrong"
    return (
        f"<section><h3>{pin.kind.capitalize()} {html(name)}</h3>{says}"
        f'<p class="{tone}">SHA-256 <code>{html(pin.sha256)}</code>, {status}</p></section>'
    )
