"""The tiny language model of random weights as a GGUF file, which llama.cpp reads."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import load_file

_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(model: Path, target: Path) -> Path:
    """Write the model of a Hugging Face folder to one GGUF file, its weights as they are.

    The rows of queries and keys are not put into llama.cpp's order: of random weights one order is as good as another.
    """
    import gguf

    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = {**tokenizer["model"]["vocab"], **{row["content"]: row["id"] for row in tokenizer["added_tokens"]}}
    special = {row["content"] for row in tokenizer["added_tokens"] if row["special"]}
    added = {row["content"] for row in tokenizer["added_tokens"]} - special
    names = sorted(vocabulary, key=lambda name: vocabulary[name])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    kinds = gguf.TokenType
    writer.add_token_types([
        kinds.CONTROL if name in special else kinds.USER_DEFINED if name in added else kinds.NORMAL for name in names
    ])  # fmt: skip
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    for name, weights in load_file(model / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if stem in _OUTER:
            writer.add_tensor(f"{_OUTER[stem]}.weight", weights)
            continue
        _, _, layer, part = stem.split(".", 3)
        writer.add_tensor(f"blk.{layer}.{_NAMES[part]}.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
