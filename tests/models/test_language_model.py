"""Language models as re-rankers score as their publishers' own code does."""

from __future__ import annotations

import random

import msgspec
import pytest
import torch

from cerank.errors import UsageError
from cerank.inference.rerank import Scorer
from cerank.models.bases import locate
from cerank.models.cross_encoder import load_tokenizer, save
from cerank.models.forward_pass import ForwardPass
from cerank.models.load_model import load_model, load_reranker
from cerank.models.prompt_templates import PUBLISHED, Declaration, declaration_text, read_declaration
from cerank.models.prompt_tokens import PromptTokenizer
from cerank.models.shared_prefix import batches_by_prefix, lay_out
from cerank.tokenization.tokens import TokenLimits
from tests.models.family_fixtures import PAIRS, edit_json, write_causal, write_t5
from tests.refusals import refused

LONGEST = 420


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("language-models")
    return {
        "Qwen3-Reranker": write_causal(root / "Qwen3-Reranker-0.6B", "qwen3"),
        "mxbai-rerank-v2": write_causal(root / "mxbai-rerank-base-v2", "qwen2"),
        "bge-reranker-v2-gemma": write_causal(root / "bge-reranker-v2-gemma", "gemma"),
        "monoT5": write_t5(root / "monot5-small-msmarco"),
    }


def model_and_tokenizer(folder, kind="AutoModelForCausalLM"):
    import transformers

    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")


def qwen_example(folder, pairs, max_length):
    """As in the model card of Qwen3-Reranker, with the logits' difference in place of the probability."""
    model, tokenizer = model_and_tokenizer(folder)
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    before = tokenizer.encode(prefix, add_special_tokens=False)
    after = tokenizer.encode(suffix, add_special_tokens=False)
    texts = [f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}" for query, document in pairs]
    room = max_length - len(before) - len(after)
    rows = tokenizer(texts, padding=False, truncation="longest_first", return_attention_mask=False, max_length=room)
    rows = {"input_ids": [before + ids + after for ids in rows["input_ids"]]}
    inputs = tokenizer.pad(rows, padding=True, return_tensors="pt")
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    return (logits[:, yes] - logits[:, no]).tolist(), rows["input_ids"]


def parts_example(folder, pairs, max_length, words):
    """As in mxbai-rerank and FlagEmbedding: query and document are tokenized apart, and the document is cut."""
    model, tokenizer = model_and_tokenizer(folder)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    before, after = ids(words["prefix"]), [id_ for part in words["suffix"] for id_ in ids(part)]
    rows = []
    for query, document in pairs:
        left = ids(words["query"] + query)
        right = ids("\n") + ids(words["document"] + document)
        room = max_length - len(before) - len(after)
        rows.append(before + (left + right)[:room] + after)
    inputs = tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
    yes = ids(words["yes"])[0]
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    scores = logits[:, yes] - (logits[:, ids(words["no"])[0]] if words["no"] else 0)
    return scores.tolist(), rows


def mxbai_example(folder, pairs, max_length):
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    words = {"prefix": prefix, "suffix": ["\n", task, "<|im_end|>\n<|im_start|>assistant\n"]}
    words |= {"query": "query: ", "document": "document: ", "yes": "1", "no": "0"}
    return parts_example(folder, pairs, max_length, words)


def gemma_example(folder, pairs, max_length):
    prompt = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing "
        "a prediction of either 'Yes' or 'No'."
    )
    words = {"prefix": "<bos>", "suffix": ["\n", prompt], "query": "A: ", "document": "B: ", "yes": "Yes", "no": ""}
    return parts_example(folder, pairs, max_length, words)


def t5_example(folder, pairs, max_length):
    """As pygaggle's monoT5, where the text is cut before the word that asks."""
    model, tokenizer = model_and_tokenizer(folder, "AutoModelForSeq2SeqLM")
    asks = tokenizer("Relevant:")["input_ids"]
    rows = []
    for query, document in pairs:
        ids = tokenizer(f"Query: {query} Document: {document}", add_special_tokens=False)["input_ids"]
        rows.append(ids[: max_length - len(asks)] + asks)
    inputs = tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
    true, false = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("true", "false"))
    start = torch.full((len(rows), 1), model.config.decoder_start_token_id)
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=start).logits[:, 0, [true[0], false[0]]]
    return logits.log_softmax(dim=-1)[:, 0].tolist(), rows


EXAMPLES = {
    "Qwen3-Reranker": qwen_example,
    "mxbai-rerank-v2": mxbai_example,
    "bge-reranker-v2-gemma": gemma_example,
    "monoT5": t5_example,
}


def scorer_of(folder, longest=LONGEST):
    model, _, limits, _ = load_reranker(folder)
    family = locate(str(folder)).reading().family.partition(",")[0]
    assert limits.max_length == PUBLISHED[family].declaration.max_length
    return Scorer(model, model.make_tokens(load_tokenizer(folder), TokenLimits(longest, longest)))


@pytest.mark.parametrize("family", EXAMPLES)
def test_scores_equal_those_of_the_publishers_code_in_any_order_and_batch(family, folders):
    expected, _ = EXAMPLES[family](folders[family], PAIRS, LONGEST)
    assert max(expected) - min(expected) > 0.03, "scores that hardly differ would test nothing"
    scorer = scorer_of(folders[family])
    assert scorer.score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    order = list(range(len(PAIRS)))
    random.Random(3).shuffle(order)
    shuffled = scorer.score([PAIRS[at] for at in order])
    assert [shuffled[order.index(at)] for at in range(len(PAIRS))] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert [scorer.score([pair])[0] for pair in PAIRS] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", EXAMPLES)
def test_tokens_equal_those_of_the_publishers_code(family, folders):
    _, rows = EXAMPLES[family](folders[family], PAIRS, LONGEST)
    tokens = scorer_of(folders[family]).tokens
    tokens.add("query", [query for query, _ in PAIRS], lambda texts: texts)
    tokens.add("document", [document for _, document in PAIRS], lambda texts: texts)
    assert [list(tokens.pair(*pair).ids) for pair in PAIRS] == [list(row) for row in rows]
    assert tokens.is_apart


@pytest.mark.parametrize("family", [family for family in EXAMPLES if family != "monoT5"])
def test_a_causal_model_computes_the_start_of_a_querys_prompts_once_and_scores_as_with_padding(family, folders):
    scorer = scorer_of(folders[family])
    forward = scorer.forward
    assert forward.is_packed
    tokens = scorer.tokens
    tokens.add("query", [query for query, _ in PAIRS], lambda texts: texts)
    tokens.add("document", [document for _, document in PAIRS], lambda texts: texts)
    pairs = [tokens.pair(*pair) for pair in PAIRS]
    row = lay_out(pairs, torch.device("cpu"))
    queries = len({query for query, _ in PAIRS})
    assert len(row.groups) == queries
    assert len(row.ids) < sum(len(pair.ids) for pair in pairs) - 4 * (len(PAIRS) - queries)
    with torch.inference_mode():
        padded = scorer.model(tokens.batch(pairs, torch.device("cpu")))
        with forward.scoring() as score:
            assert score(pairs).tolist() == pytest.approx(padded.tolist(), rel=1e-5, abs=1e-5)


def test_gradients_through_shared_prefixes_are_those_of_padded_pairs(folders):
    found = []
    for is_packed in (True, False):
        files = locate(str(folders["Qwen3-Reranker"]))
        model = load_model(files, "auto", seed=0)
        tokens = model.make_tokens(load_tokenizer(files.folder), TokenLimits(LONGEST, LONGEST))
        tokens.add("query", [query for query, _ in PAIRS], lambda texts: texts)
        tokens.add("document", [document for _, document in PAIRS], lambda texts: texts)
        pairs = [tokens.pair(*pair) for pair in PAIRS]
        forward = ForwardPass(model, tokens, torch.device("cpu"), "fp32")
        if is_packed:
            with forward.scoring() as score:
                scores = score(pairs)
        else:
            scores = model(tokens.batch(pairs, torch.device("cpu")))
        scores.pow(2).sum().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-3, rtol=1e-3), name
    assert all(gradient is not None for gradient in found[0].values())


def test_batches_keep_the_pairs_of_a_query_together_within_the_budget(folders):
    tokens = scorer_of(folders["Qwen3-Reranker"]).tokens
    queries, documents = [f"query {n}" for n in range(5)], ["the cat " * n for n in range(12)]
    tokens.add("query", queries, lambda texts: texts)
    tokens.add("document", documents, lambda texts: texts)
    pairs = [tokens.pair(query, document) for document in documents for query in queries]
    batches = batches_by_prefix(pairs, 700)
    assert sorted(at for batch in batches for at in batch) == list(range(len(pairs)))
    sizes = [len(lay_out([pairs[at] for at in batch], torch.device("cpu")).ids) for batch in batches]
    assert max(sizes) <= 700
    assert sum(sizes) < 0.6 * sum(len(pair.ids) for pair in pairs)


@pytest.mark.parametrize("family", EXAMPLES)
def test_a_saved_checkpoint_scores_the_same_and_holds_its_template(family, folders, tmp_path):
    files = locate(str(folders[family]))
    model = load_model(files, "auto", seed=0)
    tokenizer = load_tokenizer(files.folder)
    limits = TokenLimits(LONGEST, LONGEST)
    expected = Scorer(model, model.make_tokens(tokenizer, limits)).score(PAIRS)
    save(model, tokenizer, tmp_path / "step-7", limits)
    assert Scorer.load(tmp_path / "step-7").score(PAIRS) == expected
    assert read_declaration(tmp_path / "step-7" / "reranker.toml") == PUBLISHED[family].declaration


def test_a_declared_model_reads_as_its_file_says_and_needs_no_known_name(folders, tmp_path):
    folder = write_causal(tmp_path / "mine", "qwen3")
    with refused(UsageError, "prompt-unknown"):
        locate(str(folder))
    (tmp_path / "mine.toml").write_text('model = "mine"\n' + declaration_text(PUBLISHED["Qwen3-Reranker"].declaration))
    files = locate(str(tmp_path / "mine.toml"))
    model = load_model(files, "auto", seed=0)
    scores = Scorer(model, model.make_tokens(load_tokenizer(folder), TokenLimits(LONGEST, LONGEST))).score(PAIRS)
    expected, _ = qwen_example(folder, PAIRS, LONGEST)
    assert scores == pytest.approx(expected, rel=1e-5, abs=1e-5)
    other = msgspec.structs.replace(PUBLISHED["Qwen3-Reranker"].declaration, instruction="Find what answers.")
    (tmp_path / "other.toml").write_text('model = "mine"\n' + declaration_text(other))
    assert locate(str(tmp_path / "other.toml")).sha256 != files.sha256


def test_a_causal_model_with_a_linear_head_is_read_with_its_template(folders, tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "Qwen3-Reranker-0.6B-seq-cls"
    causal, tokenizer = model_and_tokenizer(folders["Qwen3-Reranker"])
    model = AutoModelForSequenceClassification.from_pretrained(folders["Qwen3-Reranker"], num_labels=1)
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")
    with torch.no_grad():
        model.score.weight[0] = causal.lm_head.weight[yes] - causal.lm_head.weight[no]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert "causal classifier" in locate(str(folder)).reading().family
    expected, _ = qwen_example(folders["Qwen3-Reranker"], PAIRS, LONGEST)
    loaded, *_ = load_reranker(folder)
    tokens = loaded.make_tokens(load_tokenizer(folder), TokenLimits(LONGEST, LONGEST))
    assert Scorer(loaded, tokens).score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"yes": "certainly"}, "answer-not-one-token"),
        ({"kind": "encoder-decoder"}, "kind-mismatch encoder-decoder"),
        ({"kind": "causal-classifier", "yes": "", "no": ""}, "kind-mismatch causal-classifier"),
    ],
)
def test_a_declaration_that_does_not_fit_the_model_is_refused(change, reason, folders, tmp_path):
    declared = msgspec.structs.replace(PUBLISHED["Qwen3-Reranker"].declaration, **change)
    path = tmp_path / "mine.toml"
    path.write_text(f'model = "{folders["Qwen3-Reranker"]}"\n' + declaration_text(declared))
    with refused(UsageError, *reason.split()):
        load_model(locate(str(path)), "auto", seed=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('kind = "causal"\nbody = ["{query}"]\nyes = "y"', "body: {document} 0"),
        ('kind = "causal"\nbody = ["{document} {query}"]\nyes = "y"', "body:"),
        ('kind = "causal"\nbody = ["{query} {document} {tilte}"]\nyes = "y"', "body: {tilte}"),
        ('kind = "causal"\nbody = ["{query} {document}"]', "yes:"),
        ('kind = "causal"\nbody = ["{query} {document}"]\nyes = "y"\nno = "y"', "no: yes"),
        ('kind = "causal"\nbody = ["{instruction} {query} {document}"]\nyes = "y"', "instruction:"),
        ('kind = "causal"\nbody = ["{query} {document}"]\nyes = "y"\nprefx = "a"', "prefx:"),
        ('kind = "encoder-decoder"\nbody = ["{query} {document}"]\nyes = "y"', "no:"),
        ('kind = "causal"\nbody = ["{query} {document}"]\nyes = "y"\nmax_length = 2', "max_length"),
    ],
)
def test_a_declaration_that_says_nothing_usable_is_refused_with_the_reason(text, reason, tmp_path):
    (tmp_path / "reranker.toml").write_text(text)
    with refused(UsageError, "wrong-declaration", *reason.split()):
        read_declaration(tmp_path / "reranker.toml")


def test_duot5_is_refused_with_the_reason(tmp_path):
    folder = write_t5(tmp_path / "duot5-base-msmarco")
    with refused(UsageError, "not-pointwise"):
        locate(str(folder))


def test_a_name_alone_makes_no_known_model_of_another_architecture(tmp_path):
    folder = write_causal(tmp_path / "Qwen3-Reranker-like", "qwen2")
    with refused(UsageError, "prompt-unknown"):
        locate(str(folder))


def test_a_type_whose_logits_are_scaled_is_refused(folders, tmp_path):
    folder = write_causal(tmp_path / "granite", "qwen3")
    edit_json(folder / "config.json", model_type="granite", architectures=["GraniteForCausalLM"])
    (folder / "reranker.toml").write_text(declaration_text(PUBLISHED["Qwen3-Reranker"].declaration))
    with refused(UsageError, "model-type-not-supported", "granite"):
        locate(str(folder))


def test_a_limit_that_leaves_no_room_for_a_document_and_another_truncation_are_refused(folders):
    tokenizer = load_tokenizer(folders["Qwen3-Reranker"])
    template = PUBLISHED["Qwen3-Reranker"].declaration.template()
    with refused(UsageError, "length-too-small"):
        PromptTokenizer(tokenizer, TokenLimits(80, 32), template)
    with refused(UsageError, "option-for-encoders"):
        PromptTokenizer(tokenizer, TokenLimits(400, 32, 0, "longest_first"), template)


def test_a_query_and_a_document_keep_at_most_their_own_tokens(folders):
    tokenizer = load_tokenizer(folders["Qwen3-Reranker"])
    template = PUBLISHED["Qwen3-Reranker"].declaration.template()
    tokens = PromptTokenizer(tokenizer, TokenLimits(400, 5, 7), template)
    tokens.add("query", ["q"], lambda _: ["the cat sat on the mat " * 9])
    tokens.add("document", ["d"], lambda _: ["Paris is the capital " * 9])
    text = tokenizer.decode(tokens.pair("q", "d").ids)
    query = text.split("<Query>: ")[1].split("\n<Document>")[0]
    document = text.split("<Document>: ")[1].split("<|im_end|>")[0]
    assert len(tokenizer(query)["input_ids"]) == 5
    assert len(tokenizer(document)["input_ids"]) == 7


def test_parts_that_cannot_be_tokenized_apart_are_tokenized_together(folders):
    tokenizer = load_tokenizer(folders["bge-reranker-v2-gemma"])
    declared = Declaration(kind="causal", body=("{query}{document}",), suffix=("?",), yes="Yes")
    tokens = PromptTokenizer(tokenizer, TokenLimits(200, 200), declared.template())
    assert not tokens.is_apart
    tokens.add("query", ["q"], lambda _: ["the ca"])
    tokens.add("document", ["d"], lambda _: ["pital of france"])
    joint = tokenizer("the capital of france", add_special_tokens=False)["input_ids"]
    assert list(tokens.pair("q", "d").ids) == joint + tokenizer("?", add_special_tokens=False)["input_ids"]
