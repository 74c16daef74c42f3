"""An OpenAI-compatible server over HTTP: OpenAI, vLLM, llama.cpp, Ollama, SGLang, `transformers serve`.

Invariant: text goes to the declared address alone: no redirect is followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec

from cerank.errors import UsageError
from cerank.files.json_records import timestamp
from cerank.recipes.sections.teacher_specs import NEEDS_LOG_PROBABILITIES, NEWER_LIMIT, TeacherSpec
from cerank.teachers.answer_store import Call, ModelAnswer
from cerank.teachers.engines import overload, structured_output
from cerank.teachers.engines.engine import ServerError, StopTeachingError
from cerank.teachers.engines.overload import CallLimit
from cerank.teachers.engines.responses import BadResponseError, Response, error_code, error_of, parse
from cerank.teachers.prompts import Message
from cerank.teachers.secrets import Key
from cerank.text.safe_text import shown

MOST_ALTERNATIVES = 20  # tokens with log-probabilities that OpenAI, vLLM and Ollama return at most
LARGEST_RESPONSE = 8 << 20  # bytes
_TOKENS_A_WORD, _TOKENS_A_MESSAGE = 1.4, 6  # an estimate where the model's tokenizer is not here
_NOT_ANSWERED_BY_ANYONE = {401, 403, 404, 405}
_NOT_THIS_CALL = {400, 413, 422}
_CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's and SGLang's; others ignore it


class OpenAIServer:
    """A server that answers chat or completions requests.

    Args:
        spec: declaration of the teacher: its model, address, sampling parameters and retries.
        key: secret key that the server expects.
        tokens_of: returns the number of tokens of a text by the model's own tokenizer; None if it is not on this disk.
        transport: how requests are sent; None uses the network, and tests pass one that does not.
        seed: seed of the random part of pauses between retries; it decides no result. None draws one.
    """

    def __init__(
        self,
        spec: TeacherSpec,
        key: Key,
        *,
        tokens_of: Callable[[str], int] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        seed: int | None = None,
    ) -> None:
        self._spec, self._key, self._tokens_of = spec, key, tokens_of
        self._base = spec.server.rstrip("/")
        self._limit = CallLimit(spec.concurrency)
        self.jitter = random.Random(seed)
        self._starts_answers = True  # whether the assistant's turn can be begun for the model
        self.client = httpx2.AsyncClient(
            headers=key.headers(),
            timeout=httpx2.Timeout(spec.timeout, connect=min(spec.timeout, 15.0)),
            # the system's certificates take a while to read, and a server on this machine has none
            verify=ssl.create_default_context() if self._base.startswith("https:") else False,
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=spec.concurrency),
            transport=transport,
        )
        self.sent = 0  # requests that were sent, with repeated ones

    @property
    def place(self) -> str:
        """The server's address."""
        return self._base

    @property
    def path(self) -> str:
        """Return the path of the endpoint that calls go to, behind the address."""
        return "/chat/completions" if self._spec.endpoint == "chat" else "/completions"

    @property
    def allowed(self) -> int:
        """Return how many calls may run at the same time at present."""
        return self._limit.allowed

    def request(self, call: Call) -> dict[str, object]:
        """Return the body of the request for a call."""
        spec = self._spec
        body: dict[str, object] = {"model": spec.model, "temperature": spec.temperature, "max_tokens": call.max_output}
        if spec.sampling_seed is not None:
            body["seed"] = spec.sampling_seed + call.sample
        is_chat = spec.endpoint == "chat"
        messages = call.messages
        if is_chat and call.answer_start and self._starts_answers:
            messages = (*messages, Message("assistant", call.answer_start))
            body |= _CONTINUED
        if call.identifiers:
            body |= (
                {"logprobs": True, "top_logprobs": MOST_ALTERNATIVES} if is_chat else {"logprobs": MOST_ALTERNATIVES}
            )
        body |= spec.parameters
        if NEWER_LIMIT in body:  # who names it means a model that rejects the other
            del body["max_tokens"]
        if is_chat:
            body["messages"] = [{"role": message.role, "content": message.content} for message in messages]
        else:
            body["prompt"] = "\n\n".join(message.content for message in messages) + "\n\n" + call.answer_start
        return body

    def input_tokens(self, call: Call) -> tuple[int, bool]:
        """Return the tokens of a call's prompt; the chat template's own are estimated."""
        if self._tokens_of is not None:
            texts = [message.content for message in call.messages]
            return sum(map(self._tokens_of, texts)) + _TOKENS_A_MESSAGE * len(texts), True
        words = sum(len(message.content.split()) for message in call.messages)
        return round(words * _TOKENS_A_WORD) + _TOKENS_A_MESSAGE * len(call.messages), False

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    async def ask(self, call: Call, key: str) -> ModelAnswer:
        """Return the answer to a call; failing ones are sent again with growing pauses, `attempts` times in all."""
        body = self.request(call)
        reason = detail = ""
        attempts = 0
        while attempts < self._spec.attempts:
            attempts += 1
            async with self._limit as number:
                began = time.monotonic()
                result = await self._send(body)
            if isinstance(result, Response):
                self._limit.succeeded()
                answer = self.answer_of(call, key, body, result)
                return msgspec.structs.replace(answer, seconds=round(time.monotonic() - began, 3), attempts=attempts)
            reason, detail = result.reason, result.detail
            if result.is_final:
                break
            if result.is_overload:
                self._limit.overloaded(number)
            if attempts < self._spec.attempts:
                pause = overload.pause_before(attempts + 1, self.jitter)
                await asyncio.sleep(pause if result.wait is None else max(result.wait, pause / 10))
        return self.failed(key, body, Trouble(reason, detail), attempts)

    def failed(self, key: str, body: Mapping[str, object], trouble: Trouble, attempts: int) -> ModelAnswer:
        """Return the answer that says that there is none."""
        return ModelAnswer(
            key=key,
            model=self._spec.model,
            parameters=_without_prompt(body),
            time=timestamp(datetime.now(UTC)),
            attempts=attempts,
            failure=trouble.reason,
            detail=self.safe(trouble.detail),
        )

    def forms(self, call: Call) -> int:
        """Return in how many forms a call may be sent: with the answer's beginning, and without."""
        return 2 if call.answer_start and self._spec.endpoint == "chat" else 1

    def use_form(self, form: int) -> None:
        """Send calls in that form from here on; OpenAI's own servers know no beginnings of answers."""
        self._starts_answers = form == 0

    def check_probe(self, call: Call, answer: ModelAnswer) -> None:
        """Check that the answer to a small call, with the very parameters of the others, has what the teacher needs.

        Raises:
            UsageError: the server cannot give what the kind of teacher needs, such as log-probabilities.
            ServerError: it answers no request, or does not exist.
        """
        spec = self._spec
        if answer.failure:
            hint = f"is {spec.server} the right address, and does it serve {spec.model}?"
            if answer.failure.startswith("rejected"):
                needs = " with log-probabilities" if spec.kind in NEEDS_LOG_PROBABILITIES else ""
                asks = f"A {spec.kind} teacher sends such requests{needs}; `parameters` changes their members"
                hint = f"does it serve {spec.model}? {asks}"
                raise UsageError(f"the server rejects requests: {answer.detail}", where=self._base, hint=hint)
            raise ServerError(f"no answer: {answer.failure}; {answer.detail}", where=self._base, hint=hint)
        if call.identifiers and not any(answer.tokens):
            hint = "vLLM, llama.cpp, SGLang and OpenAI return them; or take kind listwise, setwise or graded"
            what = f"the server returns no log-probabilities, which a {spec.kind} teacher reads"
            raise UsageError(what, where=self._base, hint=hint, code="no-log-probabilities")
        ignored = structured_output.ignored(spec.parameters, answer.text, is_cut=answer.finish == "length")
        if ignored:
            hint = "vLLM takes structured_outputs, llama.cpp json_schema or grammar, OpenAI response_format"
            what = f"the server ignores parameters.{ignored}: its answer has another form"
            raise UsageError(what, where=self._base, hint=hint, code="parameter-ignored")

    async def _send(self, body: Mapping[str, object]) -> Response | Trouble:
        """Send one request and return what it holds, or what went wrong."""
        self.sent += 1
        try:
            async with asyncio.timeout(self._spec.timeout):  # a server may send a byte a minute for ever
                async with self.client.stream("POST", self._base + self.path, json=body) as response:
                    data = bytearray()
                    async for piece in response.aiter_bytes():
                        data += piece
                        if len(data) > LARGEST_RESPONSE:
                            return Trouble("bad response", "larger than any answer")
        except (TimeoutError, httpx2.TimeoutException):
            return Trouble("stalled", f"no answer within {self._spec.timeout:g} s", is_overload=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Trouble("connection failed", f"{type(error).__name__}: {error}", is_overload=True)
        if response.status_code == 200:
            try:
                return parse(bytes(data))
            except BadResponseError as error:
                return Trouble("bad response", str(error))
        return self.trouble(response.status_code, bytes(data), response.headers)

    def trouble(self, status: int, data: bytes, headers: Mapping[str, str]) -> Trouble:
        """Return what an error status means.

        Raises:
            ServerError: no call will be answered.
            StopTeachingError: the server asks for a long pause, or the account is used up.
        """
        detail = self.safe(f"HTTP {status}: {error_of(data)}".removesuffix(": "))
        if status in _NOT_THIS_CALL:
            return Trouble("rejected by the server", detail, is_final=True)
        if status in _NOT_ANSWERED_BY_ANYONE:
            hint = {401: "check the key", 403: "check the key and its rights"}.get(
                status, f"does it serve {self._spec.model}, and does its address end so, such as in /v1?"
            )
            raise ServerError(f"the server refuses all calls: {detail}", where=self._base, hint=hint)
        if 300 <= status < 400:
            hint = "give the address that it points to; redirects are not followed, for text goes to that host alone"
            raise ServerError("the server redirects to another address", where=self._base, hint=hint)
        wait = overload.asked_to_wait(headers, datetime.now(UTC))
        if status == 402 or (status == 429 and error_code(data) == "insufficient_quota"):
            raise StopTeachingError(
                f"the account is used up: {detail}", where=self._base, hint="continue when it is not"
            )
        if wait is not None and wait > overload.LONGEST_WAIT:
            what = f"the server asks to come back in {wait:.0f} s: {detail}"
            raise StopTeachingError(what, where=self._base, hint="the same command continues then")
        return Trouble("server error", detail, is_overload=status == 429 or status >= 500, wait=wait)

    def answer_of(self, call: Call, key: str, body: Mapping[str, object], response: Response) -> ModelAnswer:
        """Return what the store keeps of a response to a call."""
        input_tokens, output_tokens = response.input_tokens, response.output_tokens
        return ModelAnswer(
            key=key,
            model=response.model or self._spec.model,
            parameters=_without_prompt(body),
            text=self.safe(response.text, all_of_it=True),
            reasoning=self.safe(response.reasoning, all_of_it=True),
            refusal=self.safe(response.refusal, all_of_it=True),
            finish=response.finish[:100],
            tokens=response.tokens if call.identifiers else [],
            input_tokens=self.input_tokens(call)[0] if input_tokens is None else input_tokens,
            output_tokens=len(response.text) // 3 if output_tokens is None else output_tokens,
            tokens_are_estimated=input_tokens is None or output_tokens is None,
            time=timestamp(datetime.now(UTC)),
        )

    def without_key(self, data: bytes) -> bytes:
        """Return bytes from the server without the key, should it repeat it."""
        return self._key.removed_from_bytes(data)

    def safe(self, text: str, *, all_of_it: bool = False) -> str:
        """Return text of the server without keys in it; without `all_of_it`, a line to show."""
        clean = self._key.removed_from(text)
        return clean if all_of_it else shown(clean, 500)


class Trouble(msgspec.Struct, frozen=True):
    """Why a request brought no answer, and what follows from it."""

    reason: str
    detail: str
    is_overload: bool = False
    is_final: bool = False  # it would fail again
    wait: float | None = None  # seconds that the server asks to wait


def _without_prompt(body: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in body.items() if name not in {"messages", "prompt", "model"}}
