"""A server's Batch API: calls are gathered into files, answered within a day, and cost less.

The windows of one query follow each other, so a round holds one call of each query; the next begins when it is
answered. Invariant: a call is in one batch that is open, or in none; a batch that was created once is not created
again, whatever happened to the process that did it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec

from cerank.files.json_records import timestamp
from cerank.teachers.answer_store import Call, ModelAnswer
from cerank.teachers.engines import overload
from cerank.teachers.engines.batch_records import BatchLine, BatchRecord, BatchRecords
from cerank.teachers.engines.engine import ServerError, StopTeachingError
from cerank.teachers.engines.openai_server import OpenAIServer, Trouble
from cerank.teachers.engines.responses import BadResponseError, error_of, parse
from cerank.text.safe_text import counted, shown

MOST_REQUESTS, LARGEST_FILE = 50_000, 190_000_000  # of a batch, as OpenAI allows them: 200 MB
QUIET = 0.2  # seconds without a new call after which a round is complete
FIRST_POLL, LONGEST_POLL = 5.0, 120.0  # seconds between two looks at a batch
_SLICE = 0.5  # seconds after which a request to stop is noticed
_PAGES = 20  # of 100 batches each, among which a batch is looked for that was perhaps created
_ENDED = {"completed", "expired", "cancelled"}
_LATER = {"token_limit_exceeded", "rate_limit_exceeded", "billing_hard_limit_reached", "insufficient_quota"}


class BatchServer:
    """Answers calls by batches; the small call that tries the server is sent by itself.

    Args:
        direct: the server, for the form of requests and for the small call.
        records: batches that were given to it before.
        attempts: batches in which a call is sent at most.
        should_stop: returns the reason to stop waiting; "" as long as there is none.
        tell: called with what happens to batches.
    """

    def __init__(
        self,
        direct: OpenAIServer,
        records: BatchRecords,
        *,
        attempts: int,
        should_stop: Callable[[], str] = str,
        tell: Callable[[str], object] = lambda _text: None,
    ) -> None:
        self._direct, self._records, self._attempts = direct, records, attempts
        self._should_stop, self._tell = should_stop, tell
        self.is_answered: Callable[[str], bool] = lambda _key: False  # whether the lab's store holds an answer
        self._is_tried = False
        self._waiting: dict[str, _WaitingCall] = {}
        self._runner: asyncio.Task[None] | None = None
        self._added = 0
        self._own: set[str] = set()  # tokens of batches that this process created
        self._gone = 0  # how many of them the server did not have afterwards
        self._troubles = 0  # requests about batches that failed, one after the other

    @property
    def place(self) -> str:
        """The server's address."""
        return self._direct.place

    def request(self, call: Call) -> dict[str, object]:
        """Return the body of the request for a call: the same as without batches, and so is its answer's key."""
        return self._direct.request(call)

    def forms(self, call: Call) -> int:
        """Return in how many forms a call may be sent."""
        return self._direct.forms(call)

    def use_form(self, form: int) -> None:
        """Send calls in that form from here on."""
        self._direct.use_form(form)

    def input_tokens(self, call: Call) -> tuple[int, bool]:
        """Return how many tokens a call's prompt has, and whether that is exact."""
        return self._direct.input_tokens(call)

    def check_probe(self, call: Call, answer: ModelAnswer) -> None:
        """Check the answer to the small call; all calls after it go into batches."""
        self._direct.check_probe(call, answer)
        self._is_tried = True

    async def close(self) -> None:
        """Stop waiting; batches go on at the server."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        await self._direct.close()

    async def ask(self, call: Call, key: str) -> ModelAnswer:
        """Return the answer to a call, once the batch that it is in has ended."""
        if not self._is_tried:
            return await self._direct.ask(call, key)
        future: asyncio.Future[ModelAnswer] = asyncio.get_running_loop().create_future()
        # an answer that is asked for although the store has it is one that failed: earlier batches do not count
        ignored = {record.token for record in self._records.holding(key)} if self.is_answered(key) else set()
        self._waiting[key] = _WaitingCall(call, key, future, ignored)
        self._added += 1
        if self._runner is None or self._runner.done():
            self._runner = asyncio.ensure_future(self._run())
        return await future

    async def _run(self) -> None:
        """Carry out rounds as long as calls wait; an error goes to all of them."""
        try:
            pause = FIRST_POLL
            while self._waiting:
                added = -1
                while added != self._added:
                    added = self._added
                    await asyncio.sleep(QUIET)
                is_moving = self._deliver()
                is_moving = await self._submit() or is_moving
                for record in self._records.open():
                    is_moving = await self._advance(record) or is_moving
                is_moving = self._deliver() or is_moving
                pause = FIRST_POLL if is_moving else min(pause * 1.5, LONGEST_POLL)
                if not is_moving and self._waiting:
                    await self._pause(pause)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised where the answers are waited for
            for waiting in self._waiting.values():
                if not waiting.future.done():
                    waiting.future.set_exception(error)
            self._waiting.clear()

    async def _pause(self, seconds: float) -> None:
        while seconds > 0:
            if reason := self._should_stop():
                self._tell("batches go on at the server; the same command takes their answers")
                raise StopTeachingError(reason)
            await asyncio.sleep(min(seconds, _SLICE))
            seconds -= _SLICE

    def _deliver(self) -> bool:
        """Give waiting calls what came back for them; return whether there was anything."""
        is_moving = False
        for waiting in list(self._waiting.values()):
            tried = [record for record in self._records.holding(waiting.key) if record.token not in waiting.ignored]
            if not tried or tried[-1].state != "ended":
                continue
            answer = self._answer(waiting, self._records.line(tried[-1], waiting.key), len(tried))
            if answer is not None:
                del self._waiting[waiting.key]
                if not waiting.future.done():
                    waiting.future.set_result(answer)
                is_moving = True
        return is_moving

    def _answer(self, waiting: _WaitingCall, line: BatchLine | None, attempts: int) -> ModelAnswer | None:
        """Return what a line says, or None if the call is to be sent again."""
        body = self._direct.request(waiting.call)
        trouble = Trouble("not answered", "the batch ended without it")
        if line is not None and line.status == 200:
            try:
                response = parse(line.body)
            except BadResponseError as error:
                trouble = Trouble("bad response", str(error))
            else:
                answer = self._direct.answer_of(waiting.call, waiting.key, body, response)
                return msgspec.structs.replace(answer, attempts=attempts)
        elif line is not None and line.status:
            trouble = self._direct.trouble(line.status, line.body, {})
        elif line is not None:
            trouble = Trouble("not answered", line.error)
        if attempts < self._attempts and not trouble.is_final:
            return None
        return self._direct.failed(waiting.key, body, trouble, attempts)

    async def _submit(self) -> bool:
        """Put calls that are in no open batch into new ones; return whether there were any."""
        new = []
        for waiting in self._waiting.values():
            tried = [record for record in self._records.holding(waiting.key) if record.token not in waiting.ignored]
            if not tried or tried[-1].state == "ended":
                new.append(waiting)
        path = f"/v1{self._direct.path}"
        size = 0
        lines: list[bytes] = []
        keys: list[str] = []
        for waiting in new:
            row = {
                "custom_id": waiting.key, "method": "POST", "url": path, "body": self._direct.request(waiting.call),
            }  # fmt: skip
            line = msgspec.json.encode(row) + b"\n"
            if lines and (len(lines) == MOST_REQUESTS or size + len(line) > LARGEST_FILE):
                await self._advance(self._records.prepare(keys, b"".join(lines), timestamp(datetime.now(UTC))))
                size, lines, keys = 0, [], []
            lines.append(line)
            keys.append(waiting.key)
            size += len(line)
        if lines:
            await self._advance(self._records.prepare(keys, b"".join(lines), timestamp(datetime.now(UTC))))
        return bool(new)

    async def _advance(self, record: BatchRecord) -> bool:
        """Bring a batch one step on: uploaded, created, looked at, kept; return whether something changed."""
        if record.state == "prepared":
            return await self._create(record)
        try:
            return await self._look(record)
        except _GoneError as error:
            self._records.save(msgspec.structs.replace(record, state="failed", error=error.what))
            if record.token in self._own:
                self._gone += 1
                if self._gone >= self._attempts:  # it takes batches and shows none: each further one may cost
                    raise
            self._tell(f"batch {record.batch}: the server does not have it any more; its calls are sent anew")
            return True

    async def _look(self, record: BatchRecord) -> bool:
        """Ask how a created batch is, and keep what came back if it ended; return whether something changed.

        Raises:
            _GoneError: the server does not know the batch, or a file of what came back.
        """
        facts = await self._json("GET", f"/batches/{record.batch}")
        if facts is None:
            return False
        status = str(facts.get("status"))
        if status == "failed":
            self._refused(record, facts)
        if status != record.status:
            self._records.save(msgspec.structs.replace(record, status=status))
            self._tell(f"batch {record.batch}: {shown(status, 40)}{_progress(facts)}")
        if status not in _ENDED:
            return status != record.status
        outputs = b""
        for name in ("output_file_id", "error_file_id"):
            if file := facts.get(name):
                content = await self._send("GET", f"/files/{file}/content")
                if content is None:
                    return False
                outputs += content + b"\n"
        self._records.keep(msgspec.structs.replace(record, status=status), self._direct.without_key(outputs))
        return True

    async def _create(self, record: BatchRecord) -> bool:
        """Upload a batch's requests and create it, unless an earlier process did and could not write it down."""
        self._own.add(record.token)
        if record.file:
            facts = await self._find(record)
            if facts is None:
                return False
            if batch := facts.get("id"):
                self._records.save(msgspec.structs.replace(record, state="created", batch=str(batch)))
                return True
        else:
            files = {"file": ("requests.jsonl", self._records.requests(record), "application/jsonl")}
            uploaded = await self._json("POST", "/files", data={"purpose": "batch"}, files=files)
            if uploaded is None:
                return False
            record = msgspec.structs.replace(record, file=str(uploaded.get("id") or ""))
            if not record.file:
                raise ServerError("the server took the requests and gave them no id", where=self.place)
            self._records.save(record)
        body = {
            "input_file_id": record.file,
            "endpoint": f"/v1{self._direct.path}",
            "completion_window": "24h",
            "metadata": {"cerank": record.token},
        }
        try:
            created = await self._json("POST", "/batches", json=body)
        except ServerError as error:
            self._records.save(msgspec.structs.replace(record, state="failed", error=error.what))
            raise
        if created is None:
            return False  # it may have been created all the same: it is looked for before the next try
        record = msgspec.structs.replace(record, state="created", batch=str(created.get("id") or ""))
        if not record.batch:
            raise ServerError("the server created a batch and gave it no id", where=self.place)
        self._records.save(record)
        self._tell(f"batch {record.batch}: {counted(len(record.keys), 'call')} sent to {self.place}")
        return True

    async def _find(self, record: BatchRecord) -> dict[str, Any] | None:
        """Return the batch that was made of a record's file; {} if there is none, None if the server did not say."""
        after = ""
        for _ in range(_PAGES):
            listed = await self._json("GET", f"/batches?limit=100{after}")
            if listed is None:
                return None
            rows = [row for row in listed.get("data") or [] if isinstance(row, dict)]
            for row in rows:
                metadata = row.get("metadata")
                token = metadata.get("cerank") if isinstance(metadata, dict) else None
                if token == record.token or row.get("input_file_id") == record.file:
                    return row
            if not rows or not listed.get("has_more"):
                break
            after = f"&after={rows[-1].get('id')}"
        return {}

    def _refused(self, record: BatchRecord, facts: Mapping[str, Any]) -> None:
        """Record that the server did not accept a batch, and end the work; its calls may be sent anew.

        Raises:
            StopTeachingError: it would accept it later. ServerError: it would not.
        """
        errors = facts.get("errors")
        rows = errors.get("data") if isinstance(errors, dict) else None
        listed = [row for row in rows or [] if isinstance(row, dict)]
        text = self._direct.safe("; ".join(str(row.get("message") or row.get("code")) for row in listed[:3]))
        self._records.save(msgspec.structs.replace(record, state="failed", status="failed", error=text))
        what = f"the server did not accept batch {record.batch}: {text or 'it gives no reason'}"
        if any(row.get("code") in _LATER for row in listed):
            raise StopTeachingError(what, where=self.place, hint="the same command continues later")
        raise ServerError(what, where=self.place, hint="batch = false asks without the Batch API")

    async def _json(self, method: str, path: str, **more: Any) -> dict[str, Any] | None:
        data = await self._send(method, path, **more)
        if data is None:
            return None
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            await self._failed_to(f"{method} {path}: not JSON")
            return None
        if not isinstance(value, dict):
            await self._failed_to(f"{method} {path}: not a JSON object")
            return None
        return value

    async def _send(self, method: str, path: str, **more: Any) -> bytes | None:
        """Return the body of a response about files and batches, or None after a pause if it may come later.

        Raises:
            ServerError: the server refuses such requests; `_GoneError` where it does so by 404.
            StopTeachingError: it failed many times, or asks to wait.
        """
        try:
            response = await self._direct.client.request(method, self.place + path, **more)
            data = response.content
        except (httpx2.HTTPError, OSError) as error:
            await self._failed_to(f"{type(error).__name__}: {error}")
            return None
        if response.status_code == 200:
            self._troubles = 0
            return data
        if response.status_code in {400, 404, 405, 413, 422}:
            hint = "does the server have a Batch API? batch = false asks without it"
            what = f"the server refuses batches: HTTP {response.status_code}: {self._direct.safe(error_of(data))}"
            raise (_GoneError if response.status_code == 404 else ServerError)(what, where=self.place, hint=hint)
        trouble = self._direct.trouble(response.status_code, data, response.headers)
        await self._failed_to(trouble.detail, trouble.wait)
        return None

    async def _failed_to(self, detail: str, wait: float | None = None) -> None:
        """Wait before a request is sent again; end the work if too many failed one after the other."""
        self._troubles += 1
        if self._troubles >= self._attempts:
            hint = "batches go on at the server; the same command takes their answers"
            what = f"no answer about batches: {self._direct.safe(detail)}"
            raise StopTeachingError(what, where=self.place, hint=hint)
        pause = overload.pause_before(self._troubles + 1, self._direct.jitter)
        await self._pause(max(pause, wait or 0.0))


class _GoneError(ServerError):
    """The server has nothing of that name."""


class _WaitingCall:
    """A call whose batch has not ended."""

    def __init__(self, call: Call, key: str, future: asyncio.Future[ModelAnswer], ignored: set[str]) -> None:
        self.call, self.key, self.future, self.ignored = call, key, future, ignored


def _progress(facts: Mapping[str, Any]) -> str:
    """Return how far a batch is, as its server says it; "" where it does not."""
    counts = facts.get("request_counts")
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return f", {int(counts['completed'])} of {int(counts['total'])} calls answered" if counts else ""
    return ""
