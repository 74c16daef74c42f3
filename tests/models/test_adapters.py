"""LoRA adapters score as peft scores them, whatever their base is."""

from __future__ import annotations

import shutil

import pytest
import torch

from cerank.errors import CerankError, MissingError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models import adapters
from cerank.models.bases import locate
from cerank.models.cross_encoder import load_tokenizer, save
from cerank.models.load_model import load_model
from cerank.tokenization.tokens import TokenLimits
from tests.models.family_fixtures import PAIRS, edit_json, write_causal, write_encoder
from tests.models.test_language_model import LONGEST, qwen_example
from tests.refusals import refused

peft = pytest.importorskip("peft")


def write_adapter(folder, base, kind, *, auto="AutoModelForSequenceClassification", labels=1, targets, **more):
    """An adapter with random updates, and a random head where the base has none."""
    import transformers

    own = {"num_labels": labels} if auto == "AutoModelForSequenceClassification" else {}
    model = getattr(transformers, auto).from_pretrained(base, **own)
    options = {"use_dora": kind == "DoRA", "use_rslora": kind == "rsLoRA", "target_modules": targets}
    task = "CAUSAL_LM" if auto == "AutoModelForCausalLM" else "SEQ_CLS" if more.pop("has_head", True) else None
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, task_type=task, **options, **more))
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(folder)
    return adapted.eval()


def peft_scores(adapted, base):
    tokenizer = load_tokenizer(base)
    queries, documents = zip(*PAIRS, strict=True)
    inputs = tokenizer(list(queries), list(documents), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = adapted(**inputs).logits
    return (logits.squeeze(-1) if logits.shape[-1] == 1 else logits.log_softmax(dim=-1)[:, 1]).tolist()


HEADS = {"Bert": ["classifier"], "ModernBert": ["head", "classifier"], "DebertaV2": ["pooler", "classifier"]}
TARGETS = {"Bert": ["query", "value"], "ModernBert": ["Wqkv", "Wo", "Wi"], "DebertaV2": ["query_proj", "value_proj"]}


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "rsLoRA"])
@pytest.mark.parametrize("family", TARGETS)
def test_an_adapter_with_its_head_scores_as_in_peft(family, kind, tmp_path):
    base = write_encoder(tmp_path / "base", f"{family}Model")
    labels = 2 if kind == "DoRA" else 1
    saved = {"labels": labels, "modules_to_save": HEADS[family]}
    adapted = write_adapter(tmp_path / "adapter", base, kind, targets=TARGETS[family], **saved)
    expected = peft_scores(adapted, base)
    found = Scorer.load(tmp_path / "adapter").score(PAIRS)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(found) - min(found) > 1e-3
    assert locate(str(tmp_path / "adapter")).reading().family.startswith(f"{kind} adapter of rank 4 over")


def test_an_adapter_without_a_head_keeps_that_of_its_finished_base(tmp_path):
    base = write_encoder(tmp_path / "base", "BertForSequenceClassification", num_labels=1)
    adapted = write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query", "value"], has_head=False)
    found = Scorer.load(tmp_path / "adapter").score(PAIRS)
    assert found == pytest.approx(peft_scores(adapted, base), rel=1e-5, abs=1e-5)
    assert found != pytest.approx(Scorer.load(base).score(PAIRS), abs=1e-3)


def test_an_adapter_over_a_causal_re_ranker_is_read_with_its_template(tmp_path):
    base = write_causal(tmp_path / "Qwen3-Reranker-0.6B", "qwen3")
    adapted = write_adapter(
        tmp_path / "adapter", base, "LoRA", auto="AutoModelForCausalLM", targets=["q_proj", "down_proj"]
    )
    load_tokenizer(base).save_pretrained(tmp_path / "merged")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    expected, _ = qwen_example(tmp_path / "merged", PAIRS, LONGEST)
    model = load_model(locate(str(tmp_path / "adapter")), "auto", seed=0)
    tokens = model.make_tokens(load_tokenizer(base), TokenLimits(LONGEST, LONGEST))
    assert Scorer(model, tokens).score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_what_is_saved_from_an_adapter_is_a_whole_model_that_scores_the_same(tmp_path):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query", "value"])
    model, tokenizer = load_model(locate(str(tmp_path / "adapter")), "auto", seed=0), load_tokenizer(base)
    assert all(parameter.requires_grad for parameter in model.parameters())
    save(model, tokenizer, tmp_path / "saved", TokenLimits(64, 64, 0, "longest_first"))
    before = Scorer.load(tmp_path / "adapter")
    shutil.rmtree(base)
    after = Scorer.load(tmp_path / "saved")
    expected, found = dict(before.model.named_parameters()), dict(after.model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # weights begin at other places in the two files that are mapped, and a matrix product may round by place
    for parameter in (*expected.values(), *found.values()):
        parameter.data = parameter.data.clone()
    assert after.score(PAIRS) == before.score(PAIRS)


@pytest.mark.parametrize("family", ["ModernBert", "DebertaV2"])
def test_a_head_of_which_a_part_was_random_and_not_saved_is_refused(family, tmp_path):
    base = write_encoder(tmp_path / "base", f"{family}Model")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=TARGETS[family])
    with refused(UsageError, "head-untrained") as error:
        Scorer.load(tmp_path / "adapter")
    assert "modules_to_save" in error.value.hint


def test_the_fingerprint_depends_on_base_and_adapter(tmp_path):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query", "value"])
    before = locate(str(tmp_path / "adapter")).sha256
    edit_json(tmp_path / "adapter" / "adapter_config.json", lora_alpha=9)
    changed = locate(str(tmp_path / "adapter")).sha256
    edit_json(base / "config.json", note="other")
    assert len({before, changed, locate(str(tmp_path / "adapter")).sha256}) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "IA3"}, "adapter-type IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "adapter-changes-base"),
        ({"base_model_name_or_path": None}, "adapter-without-base"),
        ({"revision": "abc"}, "adapter-revision"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_refused(change, reason, tmp_path):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query"])
    edit_json(tmp_path / "adapter" / "adapter_config.json", **change)
    with refused(UsageError, *reason.split()):
        locate(str(tmp_path / "adapter"))


def test_an_adapter_for_another_base_is_refused(tmp_path):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query"])
    other = write_encoder(tmp_path / "other", "DistilBertForSequenceClassification", num_labels=1)
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(other))
    with refused(UsageError, "adapter-for-another-base"):
        load_model(locate(str(tmp_path / "adapter")), "auto", seed=0)


def test_an_adapter_with_a_random_head_is_refused_and_pickled_weights_too(tmp_path):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query"], has_head=False)
    with refused(UsageError, "head-untrained"):
        locate(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / adapters.WEIGHTS).rename(tmp_path / "adapter" / "adapter_model.bin")
    with refused(MissingError, "weights-missing", "adapter_model.safetensors"):
        locate(str(tmp_path / "adapter"))


def test_without_peft_the_error_says_what_to_install(tmp_path, monkeypatch):
    base = write_encoder(tmp_path / "base", "BertModel")
    write_adapter(tmp_path / "adapter", base, "LoRA", targets=["query"])
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda _: None)
    with refused(CerankError, "library-missing", "peft") as error:
        load_model(locate(str(tmp_path / "adapter")), "auto", seed=0)
    assert "cerank[lora]" in error.value.hint
