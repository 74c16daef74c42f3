"""Messages that leave the dashboard: by a command or a webhook of the user's."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from cerank.app import notify

TEXT = "✔ brisk-otter finished"


def test_a_command_gets_the_text_as_its_last_argument(tmp_path: Path) -> None:
    script = tmp_path / "tell.py"
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2], encoding='utf8')")
    assert notify.send(f"{sys.executable} {script} {tmp_path / 'told'}", TEXT)
    assert (tmp_path / "told").read_text(encoding="utf8") == TEXT


def test_what_cannot_be_sent_is_no_error() -> None:
    assert not notify.send("/no/such/command", TEXT)
    assert not notify.send("http://127.0.0.1:1/hook", TEXT)
    assert not notify.send("unbalanced 'quote", TEXT)


def test_a_webhook_gets_the_text_in_the_form_that_it_reads() -> None:
    bodies: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = Thread(target=server.handle_request)
    thread.start()
    assert notify.send(f"http://127.0.0.1:{server.server_port}/topic", TEXT)
    thread.join()
    server.server_close()
    assert bodies == [TEXT.encode()]
    for address, key in (
        ("https://hooks.slack.com/services/x", "text"),
        ("https://discord.com/api/webhooks/x", "content"),
    ):
        body = notify.request_of(address, TEXT).data
        assert isinstance(body, bytes)
        assert json.loads(body) == {key: TEXT}
