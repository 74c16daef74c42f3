"""A causal language model of random weights with a tokenizer of its own: it ranks badly, and that is what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cerank.teachers import prompts

_CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_language_model(folder: Path, *, sharpness: float = 8.0, says: Sequence[str] = ()) -> Path:
    """Write the model and its tokenizer, in which every letter is a token, and so are yes and no.

    Args:
        folder: where it is written.
        sharpness: factor of the last layer's weights.
        says: the only texts that the model says, in an order as random as its weights; none: anything.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [prompts.load("rankzephyr", "listwise").suffix, "text of query worth 1 2 3 yes no Yes No " * 20]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.add_tokens(list(says))
    wrapped.chat_template = _CHAT
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data.mul_(sharpness)
    if says:  # what is never said has the logit 0, and one of the others is above it
        spoken = torch.tensor(wrapped.convert_tokens_to_ids([*says]))
        kept = model.lm_head.weight.data[spoken]
        model.lm_head.weight.data.zero_()
        model.lm_head.weight.data[spoken] = kept
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
