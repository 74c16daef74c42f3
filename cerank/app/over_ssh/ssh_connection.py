"""The line to a lab on another machine: one ssh that the user's own settings govern, and calls through it.

Invariant: no call waits for ever, and a line that dropped is opened again by the next call that is due; a password is
asked for only when the line is opened for the first time, never over a screen.
"""

from __future__ import annotations

import contextlib
import queue
import shlex
import subprocess
import threading
import time
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import msgspec

import cerank
from cerank.app.over_ssh import lab_messages
from cerank.app.over_ssh.lab_messages import BANNER, Greeting, LabAnswer, LabCall
from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.files import json_records
from cerank.runs.lab_address import COMMAND, NOT_FOUND, SSH_FAILED, LabAddress, remote_command

FIRST_PATIENCE = 300.0  # seconds in which the user may type a password
PATIENCE = 30.0  # seconds for an answer that takes no work
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds before the line is opened again, by how often that failed


class LineDroppedError(RunFailedError):
    """The machine of the lab is not reached now; the next try may reach it."""

    class_code = "line-dropped"


class SshConnection:
    """Calls to the cerank where a lab is; threads may call at the same time.

    Args:
        address: where the lab is.
    """

    def __init__(self, address: LabAddress) -> None:
        self.address = address
        self.greeting: Greeting | None = None
        self._is_closed = False
        self._line: _Line | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._why = ""
        self._opening = threading.Lock()

    def call(
        self, name: str, args: dict[str, Any] | None = None, *, data: bytes = b"", kind: Any = None,
        patience: float = PATIENCE,
    ) -> tuple[Any, bytes]:  # fmt: skip
        """Return the result of a call, and the bytes that came with it.

        Args:
            name: method of the server.
            args: its arguments.
            data: bytes that go with them.
            kind: type of the result; None for none.
            patience: seconds until the line counts as dropped.

        Raises:
            LineDroppedError: the machine is not reached.
            CerankError: the other side refuses.
        """
        line = self._open()
        answer = line.call(name, args or {}, data, patience)
        if answer is None:
            self._drop(line, line.why or f"no answer within {patience:.0f} s")
            raise self._error()
        message, received = answer
        if message.error is not None:
            raise message.error.error()
        try:
            return (None if kind is None else json_records.decode(message.result, kind)), received
        except (msgspec.MsgspecError, ValueError) as error:
            self._drop(line, _no_message(error))
            raise self._error() from error

    def unpacked(self, data: bytes, kind: Any) -> Any:
        """Return what the bytes of an answer hold.

        Raises:
            LineDroppedError: they hold something else; the line is closed, for nobody knows what follows.
        """
        try:
            return lab_messages.unpacked(data, kind)
        except (msgspec.MsgspecError, zlib.error, ValueError) as error:
            with self._opening:
                if self._line is not None:
                    self._fail(self._line, _no_message(error))
            raise self._error() from error

    def open(self) -> Greeting:
        """Open the line for the first time, when ssh may still ask for a password.

        Raises:
            MissingError: there is no ssh here, or no cerank there.
            UsageError: the versions differ, or the other side refuses the lab.
            LineDroppedError: the machine is not reached.
        """
        self._open()
        if self.greeting is None:
            raise self._error()
        return self.greeting

    def close(self) -> None:
        """Close the line."""
        with self._opening:
            self._is_closed = True
            if self._line is not None:
                self._line.close()
                self._line = None

    def _open(self) -> _Line:
        with self._opening:
            if self._line is not None and self._line.is_open:
                return self._line
            if self._line is not None:
                self._fail(self._line)
            if self._is_closed or time.monotonic() < self._retry_at:
                raise self._error()
            is_first = self.greeting is None
            line = _Line(self.address, () if is_first else ("-o", "BatchMode=yes"))
            try:
                greeting = line.greet(FIRST_PATIENCE if is_first else PATIENCE)
            except LineDroppedError as error:
                self._fail(line, error.what)
                raise self._error() from error
            except BaseException:
                line.close()
                raise
            self.greeting, self._line, self._failures, self._why = greeting, line, 0, ""
            return line

    def _drop(self, line: _Line, why: str) -> None:
        with self._opening:
            if self._line is line:
                self._fail(line, why)

    def _fail(self, line: _Line, why: str = "") -> None:
        line.close()
        self._line = None
        self._why = why or line.why or "the line dropped"
        self._retry_at = time.monotonic() + PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1

    def _error(self) -> LineDroppedError:
        hint = f"`ssh {' '.join(self.address.words[1:])}` shows what is wrong"
        return LineDroppedError(f"{self.address.host} is not reached: {self._why}", where="--lab", hint=hint)


def _no_message(error: Exception) -> str:
    return f"no message of cerank: {error}"[:200]


class _Line:
    """One ssh process with the server at its other end."""

    def __init__(self, address: LabAddress, options: Sequence[str]) -> None:
        self.address = address
        self.is_open = True
        self._said: deque[str] = deque(maxlen=5)  # by ssh, and by the other side on its standard error
        self._waiting: dict[int, queue.Queue[tuple[LabAnswer, bytes] | None]] = {}
        self._next = 1
        self._writing = threading.Lock()
        command = f"{remote_command()} lab-server --lab {shlex.quote(address.folder)}"
        try:
            self._process = subprocess.Popen(
                [*address.words_with("-T", *options), command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            raise MissingError("there is no ssh on this machine", where="--lab", code="remote-lab") from None
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = cast("tuple[BinaryIO, BinaryIO, BinaryIO]", pipes)
        threading.Thread(target=self._read_errors, daemon=True).start()

    @property
    def why(self) -> str:
        """Return what was said last before the line dropped."""
        return " ".join(self._said)[-300:]

    def greet(self, patience: float) -> Greeting:
        """Wait for the other side to say what it is.

        Raises:
            LineDroppedError: it is not reached.
            MissingError, UsageError: it has no cerank, another version, or no such lab.
        """
        timer = threading.Timer(patience, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            for _ in range(lab_messages.MOST_NOISE):
                line = self._out.readline()
                if line.startswith(BANNER) or not line:
                    break
        finally:
            timer.cancel()
        if line.startswith(BANNER):
            try:
                greeting = json_records.decode(line[len(BANNER) :], Greeting)
            except (msgspec.MsgspecError, ValueError) as error:
                raise LineDroppedError(_no_message(error)) from error
            if greeting.version != cerank.__version__:
                what = f"{self.address.host} has cerank {greeting.version}, and this machine {cerank.__version__}"
                hint = "install the same version on both"
                raise UsageError(what, where="--lab", hint=hint, code="remote-version")
            threading.Thread(target=self._read_answers, daemon=True).start()
            return greeting
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(5)
            time.sleep(0.05)  # for the last line of standard error
            if code == NOT_FOUND:
                hint = f"set {COMMAND}, such as /shared/me/venv/bin/cerank"
                what = f"{self.address.host} has no command {remote_command()}"
                raise MissingError(what, where="--lab", hint=hint, code="remote-lab")
            if code not in {SSH_FAILED, -9}:
                what = f"{self.address.host} refuses: {self.why or f'exit code {code}'}"
                raise UsageError(what, where="--lab", code="remote-lab")
        raise LineDroppedError(self.why or f"no answer within {patience:.0f} s")

    def call(self, name: str, args: dict[str, Any], data: bytes, patience: float) -> tuple[LabAnswer, bytes] | None:
        """Return the answer to a call; None where the line dropped or the patience ended."""
        answers: queue.Queue[tuple[LabAnswer, bytes] | None] = queue.Queue()
        if not self._writing.acquire(timeout=patience):
            return None
        number, self._next = self._next, self._next + 1
        self._waiting[number] = answers
        try:
            try:
                if not self.is_open:
                    return None
                self._write(LabCall(number, name, args, len(data)), data, patience)
            finally:
                self._writing.release()
            return answers.get(timeout=patience)
        except (OSError, ValueError, queue.Empty):  # ValueError: closed by another thread
            return None
        finally:
            self._waiting.pop(number, None)

    def _write(self, call: LabCall, data: bytes, patience: float) -> None:
        """Write a call; ssh is ended where the other side does not take it in time."""
        timer = threading.Timer(patience, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            lab_messages.send(self._in, call, data)
        finally:
            timer.cancel()

    def close(self) -> None:
        """End ssh, and everybody's waiting."""
        self.is_open = False
        if self._process.poll() is None:  # first, for closing the stream waits for a thread that writes to it
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            self._in.close()
        self._release()

    def _read_answers(self) -> None:
        try:
            while (received := lab_messages.receive(self._out, LabAnswer)) is not None:
                answers = self._waiting.get(received[0].id)
                if answers is not None:
                    answers.put(received)
        except (OSError, ValueError) as error:
            self._said.append(_no_message(error))
        self.is_open = False
        self._release()

    def _release(self) -> None:
        for answers in list(self._waiting.values()):
            answers.put(None)

    def _read_errors(self) -> None:
        for line in self._err:
            text = line.decode("utf-8", "replace").strip()
            if text:
                self._said.append(text)
