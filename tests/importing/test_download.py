from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cerank.errors import ExitCode, FormatError, HeldError, MissingError
from cerank.importing import download
from cerank.importing.download import fetch, place_of
from cerank.importing.format_catalog import FORMATS
from cerank.importing.published_files import PUBLISHED_FILES, PublishedFile
from tests.refusals import refused

DATA = bytes(range(256)) * 9000
MD5 = hashlib.md5(DATA).hexdigest()


class Publisher(BaseHTTPRequestHandler):
    """Serves DATA with ranges; its class attributes say how it misbehaves."""

    data, etag, asked = DATA, '"one"', list[str]()
    cut = 0  # bytes after which the line goes dead; 0: never
    ranges = True
    status = 0
    location = ""

    def do_GET(self) -> None:
        cls = type(self)
        cls.asked.append(self.headers.get("Range", ""))
        if cls.location:
            self.send_response(302)
            self.send_header("Location", cls.location)
            self.end_headers()
            return
        if cls.status:
            self.send_error(cls.status)
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match and cls.ranges else 0
        if self.headers.get("If-Range", cls.etag) != cls.etag:
            start = 0
        if start >= len(cls.data):
            self.send_error(416)
            return
        body = cls.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(cls.data) - 1}/{len(cls.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", cls.etag)
        self.end_headers()
        self.wfile.write(body[: cls.cut or None])

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Publisher]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    kind: type[Publisher] = type("OnePublisher", (Publisher,), {"asked": []})
    web = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.url = f"http://127.0.0.1:{web.server_port}/file.tsv"  # type: ignore[attr-defined]
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield kind
    web.shutdown()
    web.server_close()
    thread.join()


def _source(server: type[Publisher], **changes: object) -> PublishedFile:
    fields = {"name": "it", "format": "run", "file": "file.tsv", "url": server.url, "md5": (MD5,), "size": len(DATA)}  # type: ignore[attr-defined]
    return PublishedFile(**{**fields, **changes})  # type: ignore[arg-type]


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "it").iterdir())


def test_a_file_is_fetched_checked_and_then_never_again(server: type[Publisher], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = fetch(_source(server), tmp_path, lambda done, total: told.append((done, total)))
    assert Path(found.path).read_bytes() == DATA
    assert (found.size, found.how, found.checked) == (len(DATA), "fetched", "md5")
    assert told[0] == (0, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert _left(tmp_path) == ["file.tsv"]
    assert fetch(_source(server), tmp_path).how == "was here"
    assert server.asked == [""]


@pytest.mark.parametrize("known", [{}, {"md5": ()}, {"size": 0}, {"md5": (), "size": 0}])
def test_a_download_that_broke_off_goes_on_where_it_stopped(
    server: type[Publisher], tmp_path: Path, known: dict[str, object]
) -> None:
    server.cut = 1_500_000
    with refused(MissingError, "download-cut-off", "1,500,000", "2,304,000") as caught:
        fetch(_source(server, **known), tmp_path)
    assert caught.value.hint
    assert _left(tmp_path) == ["file.tsv.part", "file.tsv.part.json"]
    server.cut = 0
    found = fetch(_source(server, **known), tmp_path)
    assert found.how == "resumed"
    assert Path(found.path).read_bytes() == DATA
    assert server.asked == ["", "bytes=1500000-"]
    assert _left(tmp_path) == ["file.tsv"]
    assert found.checked == ("md5" if known.get("md5", 1) else "size" if known.get("size", 1) else "nothing")


def test_a_file_that_changed_meanwhile_starts_anew(server: type[Publisher], tmp_path: Path) -> None:
    server.cut, server.data = 1_000_000, b"\0" * len(DATA)
    with pytest.raises(MissingError):
        fetch(_source(server), tmp_path)
    server.cut, server.data, server.etag = 0, DATA, '"two"'
    assert Path(fetch(_source(server), tmp_path).path).read_bytes() == DATA


def test_a_server_without_ranges_starts_anew(server: type[Publisher], tmp_path: Path) -> None:
    server.cut = 1_000_000
    with pytest.raises(MissingError):
        fetch(_source(server), tmp_path)
    server.cut, server.ranges = 0, False
    assert Path(fetch(_source(server), tmp_path).path).read_bytes() == DATA


def test_a_part_whose_origin_is_unknown_is_not_gone_on_with(server: type[Publisher], tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "file.tsv.part").write_bytes(b"something else")
    (tmp_path / "it" / "file.tsv.part.json").write_bytes(b'{"url": "http://other')
    assert Path(fetch(_source(server), tmp_path).path).read_bytes() == DATA
    assert server.asked == [""]


def test_a_part_that_is_all_of_it_only_needs_its_checksum(server: type[Publisher], tmp_path: Path) -> None:
    for size in (len(DATA), 0):  # with the size known nothing is asked; without, the server says that nothing is left
        folder = tmp_path / str(size)
        (folder / "it").mkdir(parents=True)
        (folder / "it" / "file.tsv.part").write_bytes(DATA)
        note = f'{{"url": "{server.url}", "validator": ""}}'  # type: ignore[attr-defined]
        (folder / "it" / "file.tsv.part.json").write_text(note)
        assert Path(fetch(_source(server, size=size), folder).path).read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_what_comes_other_than_published_never_gets_its_name(server: type[Publisher], tmp_path: Path) -> None:
    server.data = DATA[:-1] + b"x"
    for _ in range(2):
        with refused(MissingError, "download-differs", "md5") as caught:
            fetch(_source(server), tmp_path)
        assert str(place_of(_source(server), tmp_path)) in caught.value.hint
        assert "file.tsv" not in _left(tmp_path)
    server.data = DATA
    assert fetch(_source(server), tmp_path).checked == "md5"


def test_another_size_is_noticed_before_anything_is_fetched(server: type[Publisher], tmp_path: Path) -> None:
    with refused(MissingError, "download-size-differs", "2,304,000", 5):
        fetch(_source(server, size=5), tmp_path)
    assert (tmp_path / "it" / "file.tsv.part").stat().st_size == 0


def test_a_file_placed_by_hand_is_taken_if_its_checksum_agrees(server: type[Publisher], tmp_path: Path) -> None:
    source = _source(server, by_hand="a person must ask")
    with refused(MissingError, "download-by-hand") as caught:
        fetch(source, tmp_path)
    assert caught.value.exit_code == ExitCode.MISSING
    assert str(place_of(source, tmp_path)) in caught.value.hint
    assert MD5 in caught.value.hint
    place_of(source, tmp_path).parent.mkdir()
    place_of(source, tmp_path).write_bytes(DATA)
    assert fetch(source, tmp_path).how == "was here"
    place_of(source, tmp_path).write_bytes(DATA[:-1] + b"x")
    with refused(FormatError, "wrong-checksum", "md5"):
        fetch(source, tmp_path)
    place_of(source, tmp_path).write_bytes(DATA[:-1])
    with refused(FormatError, "wrong-file-size", "2,303,999", "2,304,000"):
        fetch(source, tmp_path)
    assert server.asked == []


def test_without_a_network_it_fails_at_once_and_says_what_to_place_where(tmp_path: Path) -> None:
    source = PublishedFile(name="it", format="run", file="f.run", url="http://127.0.0.1:9/f.run", md5=("0" * 32,))
    with refused(MissingError, "server-unreachable") as caught:
        fetch(source, tmp_path)
    assert caught.value.exit_code == ExitCode.MISSING
    assert caught.value.hint.startswith(f"fetch {source.url} on any machine and save it as {tmp_path}/it/f.run")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_of_the_server_is_told(server: type[Publisher], tmp_path: Path, status: int) -> None:
    server.status = status
    with refused(MissingError, "download-refused", status):
        fetch(_source(server), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "nothing"])
def test_only_web_addresses_are_opened_also_after_a_redirect(server: type[Publisher], tmp_path: Path, url: str) -> None:
    with pytest.raises(MissingError):
        fetch(_source(server, url=url, md5=(), size=0), tmp_path)
    server.location = url
    with pytest.raises(MissingError):
        fetch(_source(server, md5=(), size=0), tmp_path)
    assert not place_of(_source(server), tmp_path).exists()


def test_two_processes_do_not_fetch_the_same_file_at_once(server: type[Publisher], tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with download.lock_part(tmp_path / "it" / "file.tsv.part"), pytest.raises(HeldError):
        fetch(_source(server), tmp_path)
    assert fetch(_source(server), tmp_path).how == "fetched"


def test_every_published_file_says_what_a_person_needs() -> None:
    for source in PUBLISHED_FILES.values():
        assert not source.format or source.format in FORMATS
        assert source.url.startswith("https://")
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in source.md5)
        assert source.file in source.url or source.by_hand, source.name
        assert Path(source.file).name == source.file
    assert sum(not source.by_hand for source in PUBLISHED_FILES.values()) >= 15
