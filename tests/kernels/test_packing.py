"""Packed pairs score, and learn, as each pair alone: for every architecture, length and shape of group."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from cerank.kernels import attention
from cerank.kernels.packed_encoders import BertLikeEncoder
from cerank.kernels.packing import Span, pack
from cerank.models import forward_pass
from cerank.models.cross_encoder import CrossEncoder, load, load_tokenizer
from cerank.models.forward_pass import ForwardPass, PackedModel, resolve_precision
from cerank.tokenization.tokens import Pair, PairTokenizer, TokenLimits, batches_by_length, pad_pairs
from tests.kernels.test_gpu_operations import Counter

CPU = torch.device("cpu")
SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 320, "pad_token_id": 1}
LENGTHS = (1, 2, 7, 7, 7, 30, 31, 200, 200)
PACKED = ["bert", "electra", "roberta", "xlm-roberta", "camembert", "modernbert", "distilbert"]


class Ids:
    """As much of `PairTokenizer` as a forward pass needs."""

    def __init__(self, has_types):
        self.has_types = has_types

    def batch(self, pairs, device):
        return pad_pairs(pairs, 1, device, has_types=self.has_types)


def settings_of(kind):
    from transformers import AutoConfig

    own = dict(SIZES)
    if kind in {"roberta", "xlm-roberta", "camembert", "bert", "electra", "deberta-v2"}:
        own["type_vocab_size"] = 2
    if kind == "electra":
        own["embedding_size"] = 16
    if kind == "modernbert":  # the window is 16 tokens to either side, which most pairs exceed
        own |= {"local_attention": 32, "global_attn_every_n_layers": 2, "classifier_pooling": "cls"}
        own |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    if kind == "deberta-v2":
        own |= {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
        }
    if kind == "distilbert":
        own = {"vocab_size": 60, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 1}
        own["max_position_embeddings"] = 320
    return AutoConfig.for_model(kind, num_labels=1, **own)


def model_of(kind, pooling="classifier", **changes):
    """A random model whose weights are large enough that a wrong neighbor would show."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    torch.manual_seed(3)
    settings = settings_of(kind)
    for name, value in changes.items():
        setattr(settings, name, value)
    factory = AutoModelForSequenceClassification if pooling == "classifier" else AutoModel
    encoder = factory.from_config(settings)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    head = None if pooling == "classifier" else torch.nn.Linear(32, 1)
    return CrossEncoder(encoder, pooling, head).eval()


def pairs_of(lengths=LENGTHS):
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 60, (length,), generator=draw).tolist() for length in lengths]
    return [Pair(tuple(row), min(len(row), 1 + len(row) // 3)) for row in rows]


def forward_of(model, precision="fp32"):
    kind = model.encoder.config.model_type
    return ForwardPass(model, Ids(kind in {"bert", "electra", "deberta-v2"}), CPU, precision)


def scored(forward, pairs):
    with forward.scoring() as score:
        return score(pairs)


def alone(forward, pairs):
    return torch.cat([forward.model(forward.tokens.batch([pair], CPU)) for pair in pairs])


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance * max(1.0, float(right.detach().abs().max())), rtol=0)


@pytest.mark.parametrize("kind", [*PACKED, "deberta-v2"])
def test_scores_are_those_of_each_pair_alone(kind):
    forward = forward_of(model_of(kind))
    with torch.inference_mode():
        found, expected = scored(forward, pairs_of()), alone(forward, pairs_of())
    assert forward.is_packed == (kind != "deberta-v2")
    assert float(expected.std()) > 1e-3  # else any neighbor would do
    close(found, expected)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("pooling", ["mean", "product"])
def test_pooled_scores_are_those_of_each_pair_alone(kind, pooling):
    forward = forward_of(model_of(kind, pooling))
    with torch.inference_mode():
        close(scored(forward, pairs_of()), alone(forward, pairs_of()))
    assert forward.is_packed


def test_modernbert_may_pool_by_the_mean():
    forward = forward_of(model_of("modernbert", classifier_pooling="mean"))
    with torch.inference_mode():
        close(scored(forward, pairs_of()), alone(forward, pairs_of()))


def test_roberta_counts_no_position_for_a_padding_token_within_a_text():
    forward = forward_of(model_of("roberta"))
    pairs = [Pair((2, 1, 5, 9, 1, 7), 3), Pair((4, 5, 6, 7, 8, 9), 3)]
    assert forward.is_packed
    with torch.inference_mode():
        close(scored(forward, pairs), alone(forward, pairs))


def gradients_of(model, scores):
    model.zero_grad()
    scores.square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", PACKED)
def test_gradients_are_those_of_each_pair_alone(kind):
    model = model_of(kind)
    forward = forward_of(model)
    found = gradients_of(model, scored(forward, pairs_of()))
    expected = gradients_of(model, alone(forward, pairs_of()))
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_bf16_scores_stay_near_float32_and_are_float32_themselves(kind):
    model = model_of(kind)
    with torch.inference_mode():
        narrow, wide = scored(forward_of(model, "bf16"), pairs_of()), scored(forward_of(model), pairs_of())
    assert narrow.dtype is torch.float32
    assert not torch.equal(narrow, wide)
    close(narrow, wide, 0.1)


def test_bf16_gradients_reach_the_float32_parameters():
    model = model_of("bert")
    narrow = gradients_of(model, scored(forward_of(model, "bf16"), pairs_of()))
    wide = gradients_of(model, scored(forward_of(model), pairs_of()))
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert float((narrow - wide).norm() / wide.norm()) < 0.1


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_dropout_is_drawn_in_training_and_not_otherwise(kind):
    model = model_of(kind)
    forward = forward_of(model)
    assert forward.is_packed
    pairs = pairs_of((9, 9))
    assert torch.equal(scored(forward, pairs), scored(forward, pairs))
    model.train()
    torch.manual_seed(1)
    one = scored(forward, pairs)
    torch.manual_seed(1)
    same, other = scored(forward, pairs), scored(forward, pairs)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_packing_that_gives_other_scores_is_refused_and_padding_taken(monkeypatch):
    monkeypatch.setattr(BertLikeEncoder, "embedded", lambda self, row: self._base.embeddings(row.ids.unsqueeze(0))[0])
    forward = forward_of(model_of("bert"))  # positions now run on from pair to pair
    with torch.inference_mode(), pytest.warns(UserWarning, match="padded, which is slower"):
        found = scored(forward, pairs_of())
    assert not forward.is_packed
    close(found, alone(forward, pairs_of()).detach())


def test_packing_that_fails_is_refused_and_padding_taken(monkeypatch):
    monkeypatch.setattr(BertLikeEncoder, "prepared", lambda self, dtype: self._base.no_such_part)
    forward = forward_of(model_of("bert"))
    with pytest.warns(UserWarning, match="AttributeError"):
        assert not forward.is_packed


def test_memory_that_is_short_during_the_check_says_nothing_of_packing(monkeypatch):
    """Taken for a failure of packing it would change how the whole stage computes, and its bits."""
    forward = forward_of(model_of("bert"))
    scores = PackedModel.scores

    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedModel, "scores", short)
    with pytest.raises(torch.OutOfMemoryError):
        _ = forward.is_packed
    monkeypatch.setattr(PackedModel, "scores", scores)
    assert forward.is_packed


def test_a_packed_encoder_of_a_broken_package_is_padded(monkeypatch):
    def broken(*_):
        raise ImportError("undefined symbol")

    monkeypatch.setattr(PackedModel, "scores", broken)
    with pytest.warns(UserWarning, match="ImportError"):
        assert not forward_of(model_of("bert")).is_packed


def test_the_check_leaves_modes_and_random_numbers_as_they_were():
    model = model_of("bert").train()
    model.encoder.bert.embeddings.eval()
    state = torch.get_rng_state()
    assert forward_of(model).is_packed
    assert model.training
    assert not model.encoder.bert.embeddings.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_packed_forward_leaves_the_models_attention_as_it_was():
    model = model_of("modernbert")
    before = model.encoder.config._attn_implementation
    with torch.inference_mode():
        scored(forward_of(model), pairs_of())
    assert model.encoder.config._attn_implementation == before
    assert attention.NAME not in model.encoder.config.to_json_string()


def test_a_row_falls_into_spans_of_one_length():
    row = pack(pairs_of((3, 3, 5, 3)), has_types=True, device=CPU)
    assert row.spans == (Span(2, 3), Span(1, 5), Span(1, 3))
    assert row.edges.tolist() == [0, 3, 6, 11, 14]
    assert row.places.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2]
    assert row.longest == 5


def test_varlen_kernels_are_asked_for_what_spans_compute(monkeypatch):
    """All are stood in for by a loop over their own arguments, as no GPU is needed to see what they are handed."""
    row = pack(pairs_of((4, 4, 20)), has_types=True, device=CPU)
    draw = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(28, 2, 8, generator=draw) for _ in range(3))

    def kernel(query, key, value, left, right, longest_left, longest_right, *, window_size=(-1, -1), **how):
        assert (int(left.diff().max()), int(right.diff().max())) == (longest_left, longest_right)
        out = []
        for at in range(len(left) - 1):
            q, k, v = query[left[at] : left[at + 1]], key[right[at] : right[at + 1]], value[right[at] : right[at + 1]]
            weights = torch.einsum("qhd,khd->hqk", q, k) * (how.get("scale") or how["softmax_scale"])
            if window_size[0] >= 0:
                far = (torch.arange(len(q))[:, None] - torch.arange(len(k))[None]).abs() > window_size[0]
                weights = weights.masked_fill(far, -torch.inf)
            out.append(torch.einsum("hqk,khd->qhd", weights.softmax(-1), v))
        return torch.cat(out)

    def flash(query, key, value, left, right, longest_left, longest_right, dropout, is_causal, debug, **how):
        assert (dropout, is_causal, debug) == (0.0, False, False)
        assert how["window_size_left"] == how["window_size_right"]
        window = (how["window_size_left"] or -1,) * 2
        return (kernel(query, key, value, left, right, longest_left, longest_right, window_size=window, **how),)

    def efficient(query, key, value, bias, left, right, longest_left, longest_right, dropout, mask_type, _, **how):
        assert (bias, dropout, mask_type) == (None, 0.0, 0)
        parts = (part[0] for part in (query, key, value))
        return (kernel(*parts, left, right, longest_left, longest_right, **how).unsqueeze(0),)

    operators = {"_flash_attention_forward": flash, "_efficient_attention_forward": efficient}
    monkeypatch.setattr(attention.torch.ops, "aten", SimpleNamespace(**operators))
    monkeypatch.setattr(attention, "flash_attn_function", lambda: kernel)
    for queries in (query, query[row.starts]):
        for window in (0, 3) if len(queries) == 28 else (0,):
            how = attention.AttentionOptions(0.3, window=window)
            expected = attention.attend(queries, key, value, row, how)
            close(attention.KERNELS["torch flash"](queries, key, value, row, how), expected)
            close(attention.KERNELS["flash-attn"](queries, key, value, row, how), expected)
            if not window:
                close(attention.KERNELS["torch efficient"](queries, key, value, row, how), expected)


QUERIES = ["what is lce", "x", "word " * 90, ""]
PASSAGES = ["a loss", "", "passage " * 400, "."]


def test_the_real_minilm_scores_packed_as_padded_with_long_short_and_empty_texts(minilm):
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    for pooling in ("classifier", "product"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model = load(minilm, pooling, seed=0).eval()
        tokens = PairTokenizer(load_tokenizer(minilm.folder), TokenLimits(96, 24))
        tokens.add("query", QUERIES, lambda texts: texts)
        tokens.add("document", PASSAGES, lambda texts: texts)
        rows = [tokens.pair(*pair) for pair in pairs]
        forward = ForwardPass(model, tokens, CPU, "fp32")
        with torch.inference_mode():
            for cut in batches_by_length([len(row.ids) for row in rows], 300):
                part = [rows[at] for at in cut]
                close(scored(forward, part), alone(forward, part))
        assert forward.is_packed


def test_auto_is_decided_by_the_device_and_anything_else_stands():
    assert resolve_precision("auto", CPU) in {"fp32", "bf16"}
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    assert [resolve_precision(asked, CPU) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize(("precision", "step"), [("fp32", 8), ("bf16", 32)])
def test_rows_that_products_meet_without_gradients_are_multiples(precision, step):
    model = model_of("bert").eval()
    rows = []
    model.encoder.bert.embeddings.register_forward_hook(lambda *given: rows.append(given[-1].shape[1]))
    with torch.inference_mode(), ForwardPass(model, Ids(True), CPU, precision).scoring() as score:
        for lengths in ((40, 41), (64,), (100, 33, 7)):
            rows.clear()
            assert len(score(pairs_of(lengths))) == len(lengths)
            assert rows == [-(-sum(lengths) // step) * step]


def test_means_in_one_sum_for_a_gpu_are_those_span_by_span_and_so_are_their_gradients():
    row = pack([Pair((1,) * n, split) for n, split in ((3, 1), (3, 3), (5, 2), (40, 39))], False, CPU)
    for mask in (torch.ones_like(row.segments), row.segments, 1 - row.segments):
        found, expected = (torch.randn(51, 6, generator=torch.Generator().manual_seed(0)) for _ in range(2))
        means = []
        for states, mean in ((found, forward_pass.segment_means), (expected, forward_pass.span_means)):
            means.append(mean(row, states.requires_grad_(), mask))
            (means[-1] * torch.arange(24.0).view(4, 6)).sum().backward()
        close(means[0], means[1])
        close(found.grad, expected.grad)


def test_a_pooling_by_means_takes_no_more_operations_on_a_gpu_where_lengths_differ():
    counts = []
    for lengths in ((10, 10, 10, 10), (7, 9, 11, 13)):
        row = pack([Pair((1,) * n, 2) for n in lengths], False, CPU)
        meta = {name: getattr(row, name) for name in row.__struct_fields__}
        meta |= {name: value.to("meta") for name, value in meta.items() if isinstance(value, torch.Tensor)}
        with Counter() as counter:
            forward_pass.span_means(type(row)(**meta), torch.empty(40, 6, device="meta"), meta["segments"])
        counts.append(counter.operations)
    assert counts[0] == counts[1] < 12
