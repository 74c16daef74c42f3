"""Small models of each family of re-rankers, made from nothing: random weights, real architectures and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = [
    "what is the capital of france ? yes no true false Yes No 0 1 Relevant: Query: Document: relevance",
    "Paris is the capital and largest city of France, on the Seine.",
    "Given a web search query, retrieve relevant passages that answer the query <Instruct>: <Query>: <Document>:",
    "query: document: A: B: instruction: the cat sat on the mat. naïve café 日本語 1234567890",
]
PAIRS = [
    ("what is the capital of france", "Paris is the capital and largest city of France, on the Seine."),
    ("what is the capital of france", ""),
    ("what is the capital of france", "The cat sat on the mat. " * 12),
    ("what is the capital of france", "😀 naïve café \u200d 日本語\n\n"),
    ("the cat?", "\n the mat"),
    ("the cat?", "Paris"),
    ("", "Paris is the capital"),
    ("the cat {document} 😀\n", "{query} 12345 cats"),
    ("city", "largest city of France " * 2000),
]


def encoder_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizerFast

    words = sorted({word.lower() for text in TEXTS for word in text.replace(",", " ,").replace(".", " .").split()})
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)


def _save(tokenizer, folder: Path, **special) -> int:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def qwen_tokenizer(folder: Path) -> int:
    """A byte-level BPE with the splitting and the special tokens of Qwen."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    pattern += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *["yes", "no", "?\n", ":\n", ".\n\n", " yes", " no"] * 20], trainer)
    return _save(tokenizer, folder, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def gemma_tokenizer(folder: Path) -> int:
    """A BPE over text whose spaces became marks, with bytes for what it does not know, as Gemma's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{code:02X}>" for code in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, *["Yes", "No"] * 50], trainer)
    return _save(tokenizer, folder, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")


def t5_tokenizer(folder: Path) -> int:
    """A unigram model over words that begin with a mark, as T5's, which ends each text."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = ["true", "false", "Relevant", "Query", "Document", "the", "cat", "is", "capital", "city", "Paris"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -3.0 - len(word)) for word in words)]
    pieces += [("▁", -6.0), *((chr(code), -8.0) for code in range(33, 127)), (":", -4.0)]
    tokenizer = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _save(tokenizer, folder, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CAUSAL = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048}


def write_causal(folder: Path, family: str) -> Path:
    """A causal language model: "qwen3", "qwen2" or "gemma"."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    size = gemma_tokenizer(folder) if family == "gemma" else qwen_tokenizer(folder)
    kind = {"qwen3": "Qwen3", "qwen2": "Qwen2", "gemma": "Gemma"}[family]
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(vocab_size=size + 3, tie_word_embeddings=True, **CAUSAL)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    _spread(model)
    model.save_pretrained(folder)
    return folder


def write_t5(folder: Path) -> Path:
    """An encoder-decoder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True)
    size = t5_tokenizer(folder)
    torch.manual_seed(1)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(vocab_size=size + 3, decoder_start_token_id=0, **sizes))
    _spread(model, 2)  # T5 does not scale its attention: with 4, float32 alone is off by 3e-5
    model.save_pretrained(folder)
    return folder


def write_encoder(folder: Path, architecture: str, **more) -> Path:
    """A model of transformers with a BERT-like tokenizer, by the name of its class."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    encoder_tokenizer(folder)
    size = len((folder / "vocab.txt").read_text(encoding="utf8").splitlines())
    kind = architecture[: architecture.index("For")] if "For" in architecture else architecture.removesuffix("Model")
    torch.manual_seed(1)
    sizes = dict(SIZES)
    if kind == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=size, max_position_embeddings=80, **sizes, **special, **more
    )
    model = getattr(transformers, architecture)(config)
    _spread(model)
    model.save_pretrained(folder)
    return folder


def write_lightning(folder: Path, *, pooling: str = "first", backbone: str = "Electra", **settings) -> Path:
    """A checkpoint as lightning-ir 0.0.6 saves it: names of settings, weights and tokenizer class are its own."""
    import torch
    from safetensors.torch import load_file, save_file

    more = {"embedding_size": 32} if backbone == "Electra" else {}
    write_encoder(folder, f"{backbone}Model", **more)
    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    weights["linear.weight"] = torch.randn(1, 32, generator=torch.Generator().manual_seed(2))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    own = {"model_type": "mono", "backbone_model_type": backbone.lower(), "architectures": [f"Mono{backbone}Model"]}
    own |= {"query_length": 8, "doc_length": 40, "pooling_strategy": pooling, "linear_bias": False}
    own |= {"_bert_pool": False, "scoring_strategy": "rank", "use_adapter": False} | settings
    edit_json(folder / "config.json", **own)
    tokenizer = {"tokenizer_class": "CrossEncoderTokenizer", "query_length": 8, "doc_length": 40}
    edit_json(folder / "tokenizer_config.json", **tokenizer)
    return folder


def write_xpm(folder: Path, **tokenizer) -> Path:
    """A checkpoint as experimaestro-ir 1.5 puts it on the hub: the model in a folder, the lengths in a definition."""
    write_encoder(folder / "encoder_path", "BertForSequenceClassification", num_labels=1)
    lengths = {"max_length": 48, "max_query_length": 8, "max_doc_length": 40, "query_prompt": None, "doc_prompt": None}
    loader = {"encoder_path": {"type": "path.serialized", "value": "encoder_path", "is_folder": True}}
    rows = [
        {"typename": "xpmir.neural.huggingface.HFQueryDocTokenizer", "fields": lengths | tokenizer},
        {"typename": "xpmir.neural.huggingface.CrossEncoderModuleLoader", "fields": loader},
    ]
    (folder / "experimaestro.json").write_text(json.dumps(rows), encoding="utf8")
    (folder / "config.json").write_text('{"model_id": null}', encoding="utf8")
    return folder


def write_ettin(folder: Path) -> Path:
    """The modules of an Ettin re-ranker: ModernBERT, first state, Dense with GELU, LayerNorm, Dense of one score."""
    import torch

    from cerank.models.module_head import DenseModule, LayerNormModule, write_head

    write_encoder(folder, "ModernBertModel")
    torch.manual_seed(5)
    gelu, none = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
    layers = [(32, gelu), (1, none)]
    dense = [
        DenseModule({"in_features": 32, "out_features": size, "activation_function": name}, "") for size, name in layers
    ]
    write_head(torch.nn.Sequential(dense[0], LayerNormModule(32), dense[1]), "cls", folder)
    return folder


def _spread(model, factor: float = 4) -> None:
    """Make random weights large enough for scores that differ between pairs."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
            elif "norm" not in name.lower():
                parameter.normal_(std=0.3)


def edit_json(path: Path, **values) -> None:
    """Change some keys of a JSON file; None takes one out."""
    found = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    found |= values
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}), encoding="utf8")
