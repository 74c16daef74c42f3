"""A causal language model in this process, by transformers: for small models, and where no server is wanted.

Invariant: greedy unless a temperature is set; the same call gives the same answer on the same machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cerank.errors import UsageError
from cerank.files.json_records import timestamp
from cerank.models import bases
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.answer_store import Call, ModelAnswer

if TYPE_CHECKING:
    import torch

IN_PROCESS = "in process"


class LocalModel:
    """A model that answers one call at a time; log-probabilities are those of all tokens, not of the first 20.

    Args:
        spec: declaration of the teacher; its model is a base, a Hugging Face id, or a folder.
        device: device that the model runs on, such as "cpu" or "cuda:0".
        fetch: whether a model that is not on this disk may be downloaded from the hub.

    Raises:
        MissingError, UsageError: it is not there, or no causal language model.
    """

    def __init__(self, spec: TeacherSpec, device: str, *, fetch: bool) -> None:
        self._spec, self._device = spec, device
        # not `locate`: a model that writes need not say how it judges a pair
        self._folder = bases.model_folder(spec.model, fetch=fetch)
        self._sha256 = bases.fingerprint(self._folder)
        self._lock = asyncio.Lock()
        self._model: Any = None
        self._tokenizer: Any = None

    @property
    def place(self) -> str:
        """Return "in process", the hash of the weights and the kind of device; part of each answer's key."""
        return f"{IN_PROCESS} {self._sha256[:16]} {self._device.partition(':')[0]}"

    def forms(self, call: Call) -> int:  # noqa: ARG002 - a model in process takes every form
        """Return 1: the answer's beginning is simply part of the prompt."""
        return 1

    def use_form(self, form: int) -> None:
        """Do nothing; there is one form."""

    def check_probe(self, call: Call, answer: ModelAnswer) -> None:
        """Do nothing: a model in process offers log-probabilities of every token."""

    def request(self, call: Call) -> dict[str, object]:
        """Return all that decides the answer."""
        return {
            "model": self._sha256,
            "temperature": self._spec.temperature,
            "seed": self._spec.sampling_seed,
            "max_tokens": call.max_output,
            "identifiers": list(call.identifiers),
            "answer_start": call.answer_start,
            "parameters": self._spec.parameters,
            "messages": [{"role": message.role, "content": message.content} for message in call.messages],
        }

    def input_tokens(self, call: Call) -> tuple[int, bool]:
        """Return the tokens of a call's prompt, counted."""
        tokenizer = self._load_tokenizer()
        return len(tokenizer(self._prompt(call, tokenizer), add_special_tokens=False)["input_ids"]), True

    async def close(self) -> None:
        """Let go of the model."""
        self._model = None

    async def ask(self, call: Call, key: str) -> ModelAnswer:
        """Return the model's answer."""
        async with self._lock:  # one forward pass at a time: it takes the whole device
            return await asyncio.to_thread(self._answer, call, key)

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        return self._tokenizer

    def _load(self) -> Any:
        if self._model is None:
            import torch
            from transformers import AutoModelForCausalLM

            try:
                model: Any = AutoModelForCausalLM.from_pretrained(
                    self._folder, local_files_only=True, use_safetensors=True, dtype="auto"
                )
            except ValueError as error:
                hint = "a cross-encoder is a teacher of its own kind"
                raise UsageError(f"no causal language model: {error}", where=self._spec.model, hint=hint) from error
            if self._device == "cpu":
                model = model.to(torch.float32)
            self._model = model.to(self._device).eval()
        return self._model

    def _prompt(self, call: Call, tokenizer: Any) -> str:
        """Return the prompt by the model's own chat template, or the plain messages where it has none."""
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        if tokenizer.chat_template:
            extra = self._spec.parameters.get("chat_template_kwargs")
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **(extra if isinstance(extra, dict) else {})
            )
        else:
            text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        return str(text) + call.answer_start

    def _answer(self, call: Call, key: str) -> ModelAnswer:
        import torch

        began = time.monotonic()
        model, tokenizer = self._load(), self._load_tokenizer()
        inputs = tokenizer(self._prompt(call, tokenizer), add_special_tokens=False, return_tensors="pt")
        ids = inputs["input_ids"].to(self._device)
        made = ModelAnswer(
            key=key,
            model=self._spec.model,
            parameters={name: value for name, value in self.request(call).items() if name != "messages"},
            input_tokens=int(ids.shape[1]),
        )
        most = getattr(model.config, "max_position_embeddings", None)
        if most is not None and ids.shape[1] + call.max_output > most:
            detail = f"{ids.shape[1]} tokens and an answer of {call.max_output} are more than the model's {most}"
            return msgspec.structs.replace(made, failure="rejected by the model", detail=detail)
        with torch.inference_mode():
            if call.identifiers:
                values = torch.log_softmax(model(ids).logits[0, -1].float(), dim=-1)
                tokens = self._alternatives(tokenizer, values, call)
                made = msgspec.structs.replace(made, tokens=[tokens], output_tokens=1, finish="stop")
            else:
                made = self._generated(made, call, model, tokenizer, ids)
        seconds = round(time.monotonic() - began, 3)
        return msgspec.structs.replace(made, seconds=seconds, time=timestamp(datetime.now(UTC)))

    def _alternatives(self, tokenizer: Any, values: torch.Tensor, call: Call) -> list[tuple[str, float]]:
        """Return the log-probability of every token that stands for an identifier."""
        words = call.identifiers if call.kind == "first" else ("yes", "Yes", "YES", "no", "No", "NO")
        alternatives: dict[str, float] = {}
        for word in words:
            for text in (word,) if call.kind == "first" else (word, f" {word}"):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                if len(ids) == 1:
                    alternatives[text] = float(values[ids[0]])
        return list(alternatives.items())

    def _generated(self, made: ModelAnswer, call: Call, model: Any, tokenizer: Any, ids: torch.Tensor) -> ModelAnswer:
        import torch

        if self._spec.temperature:
            torch.manual_seed((self._spec.sampling_seed or 0) + call.sample)
        options: dict[str, Any] = {"do_sample": False}
        if self._spec.temperature:
            options = {"do_sample": True, "temperature": self._spec.temperature}
        end = tokenizer.eos_token_id
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=call.max_output,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end,
            **options,
        )[0, ids.shape[1] :]
        ends = model.generation_config.eos_token_id
        stops = {end, *(ends if isinstance(ends, list) else [ends])}
        is_done = bool(len(output)) and int(output[-1]) in stops
        return msgspec.structs.replace(
            made,
            text=tokenizer.decode(output, skip_special_tokens=True),
            output_tokens=len(output),
            finish="stop" if is_done else "length",
        )


def counter_of(model: str) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text, or None where the model's tokenizer is not here.

    Args:
        model: a folder, or a Hugging Face id whose files are in the hub's cache.
    """
    path = _tokenizer_file(model)
    if path is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _tokenizer_file(model: str) -> Path | None:
    folder = Path(model).expanduser()
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    if model.count("/") != 1 or model.startswith((".", "~", "/")):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "tokenizer.json")
    return Path(cached) if isinstance(cached, str) else None
