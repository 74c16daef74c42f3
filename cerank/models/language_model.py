"""Score a pair by a language model's answer: the logit of yes less that of no, or a linear head on the last state.

Only the two rows of the output table that belong to the answers are used, and only at the last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.kernels import dropout
from cerank.models import model_folders
from cerank.models.bases import BaseFiles
from cerank.models.cross_encoder import CrossEncoder, load_tokenizer
from cerank.models.prompt_templates import DECLARATION, Declaration, declaration_text
from cerank.models.prompt_tokens import PromptTokenizer
from cerank.models.shared_prefix import SharedPrefixModel, supports_shared_prefix
from cerank.text.safe_text import shown
from cerank.tokenization.tokens import PaddedBatch, PairTokenizer, TokenLimits


class LanguageModel(CrossEncoder):
    """A language model with its template; what its causal and its encoder-decoder form share.

    Its tables of inputs and outputs are often one tensor under several names. A checkpoint holds it once.

    Args:
        model: language model of transformers, with its output embeddings or its linear head.
        declared: declaration of the prompt template and of the two answers.
        answers: ids of the answers yes and no; no may be missing; none for a model with a linear head.
    """

    def __init__(self, model: nn.Module, declared: Declaration, answers: tuple[int, ...]) -> None:
        super().__init__(model, "answer", None)
        self.declared, self.answers = declared, answers

    def make_tokens(self, tokenizer: Any, limits: TokenLimits) -> PairTokenizer:
        """Return what writes query and document into the template."""
        return PromptTokenizer(tokenizer, limits, self.declared.template())

    def write_description(self, folder: Path) -> None:
        """Write the declaration of template and answers."""
        (folder / DECLARATION).write_text(declaration_text(self.declared), encoding="utf8")

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights by name, a shared tensor under the first of its names alone."""
        weights = super().state_dict(*args, **kwargs)
        for name in _further_names(weights):
            del weights[name]
        return weights

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights that `state_dict` returned, or that hold a shared tensor under all of its names."""
        further = _further_names(super().state_dict())
        whole = {**{name: state_dict[first] for name, first in further.items() if first in state_dict}, **state_dict}
        return super().load_state_dict(whole, *args, **kwargs)


def _further_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return each name of a tensor that has an earlier one, with that."""
    first: dict[tuple[int, torch.Size], str] = {}
    further = {}
    for name, value in weights.items():
        known = first.setdefault((value.data_ptr(), value.shape), name)
        if known != name and value.numel():
            further[name] = known
    return further


class CausalReranker(LanguageModel):
    """A causal language model whose score comes from the state of the prompt's last token."""

    @property
    def base(self) -> Any:
        """Return the layers below the output table."""
        model: Any = self.encoder
        return getattr(model, model.base_model_prefix)

    def make_packed(self) -> SharedPrefixModel | None:
        """Return the model over pairs without padding, where the start of a query's prompts is computed once."""
        return SharedPrefixModel(self.base, self.score_states) if supports_shared_prefix(self.base) else None

    def forward(self, batch: PaddedBatch) -> Tensor:
        """Return scores (pairs,) in float32; padding is at the right, which no earlier token sees."""
        hidden = self.base(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.score_states(hidden[rows, batch.mask.sum(dim=1) - 1])

    def score_states(self, states: Tensor) -> Tensor:
        """Return scores (pairs,) in float32 from the states (pairs, size) of last tokens."""
        model: Any = self.encoder
        states = states.float()
        with torch.autocast(states.device.type, enabled=False):
            if not self.answers:
                head: Tensor = model.score(states)
                return head.squeeze(-1)
            table = model.get_output_embeddings().weight[list(self.answers)].float()
            cap = getattr(model.config, "final_logit_softcapping", None)
            if cap is None:
                row = table[0] - table[1] if len(table) == 2 else table[0]
                scores: Tensor = states @ row
                return scores
            logits: Tensor = torch.tanh(states @ table.T / cap) * cap
            return logits[:, 0] - logits[:, 1] if len(table) == 2 else logits[:, 0]


class SequenceReranker(LanguageModel):
    """An encoder-decoder whose score is log P(yes) between yes and no as the first token it would write."""

    def forward(self, batch: PaddedBatch) -> Tensor:
        """Return scores (pairs,) in float32."""
        model: Any = self.encoder
        start = torch.full((len(batch.ids), 1), model.config.decoder_start_token_id, device=batch.ids.device)
        out = model(input_ids=batch.ids, attention_mask=batch.mask, decoder_input_ids=start, use_cache=False)
        logits: Tensor = out.logits[:, 0, list(self.answers)].float()
        return logits.log_softmax(dim=-1)[:, 0]


def load_language_model(files: BaseFiles, seed: int) -> CausalReranker | SequenceReranker:
    """Return a language model as a cross-encoder.

    Args:
        files: files of the base, as `bases.locate` finds them.
        seed: of whatever is random; a model with all its weights has nothing that is.

    Raises:
        UsageError: the folder holds no such model, or an answer is not one token.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    model_folders.check(files.folder)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped; it draws over the log
    declared = files.reading().declaration
    if declared is None:
        raise UsageError("nothing says how this language model judges a pair", where=str(files.folder))
    torch.manual_seed(derive(seed, "head"))
    auto: Any = {
        "causal": AutoModelForCausalLM,
        "causal-classifier": AutoModelForSequenceClassification,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[declared.kind]
    more = {"num_labels": 1} if declared.kind == "causal-classifier" else {}
    try:
        model, info = auto.from_pretrained(
            files.folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **more,
        )
    except Exception as error:  # the library may raise anything on files from elsewhere
        reason = shown(next(iter(str(error).splitlines()), ""), 300) or type(error).__name__
        raise UsageError(f"transformers cannot load it: {reason}", where=str(files.folder)) from error
    if info["missing_keys"]:
        what = f"the model's files lack weights, such as {shown(min(info['missing_keys']), 80)}"
        raise UsageError(what, where=str(files.folder), hint="take the whole model")
    answers = answer_ids(load_tokenizer(files.folder), declared, files.declared_in)
    if answers and max(answers) >= model.get_output_embeddings().weight.shape[0]:
        raise UsageError("the tokenizer has more tokens than the model", where=str(files.folder))
    dropout.replace_dropout(model)
    return (SequenceReranker if declared.kind == "encoder-decoder" else CausalReranker)(model, declared, answers)


def answer_ids(tokenizer: Any, declared: Declaration, where: str = DECLARATION) -> tuple[int, ...]:
    """Return the ids of the answers: yes, and no if it is declared; `where` is the declaration's file.

    Raises:
        UsageError: an answer is not one token of this tokenizer.
    """
    answers = []
    for key, answer in (("yes", declared.yes), ("no", declared.no)):
        if not answer:
            continue
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            what = f"the answer {key} = {shown(answer, 40)!r} is {len(ids)} tokens of this tokenizer; it must be one"
            raise UsageError(
                what,
                where=where,
                hint="give the token as the model writes it, with its space",
                code="answer-not-one-token",
            )
        answers.append(ids[0])
    return tuple(answers)
