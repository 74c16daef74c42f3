"""Score pairs with the library that an exported model is for, loaded from its files, and compare with cerank."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from cerank.errors import RunFailedError, UsageError
from cerank.exporting.export_formats import GRAPH_FILES, QUANTIZED, ExportFormat
from cerank.inference.rerank import Scorer
from cerank.models.load_model import FinishedReranker
from cerank.text.safe_text import counted
from cerank.tokenization.tokens import pad_pairs

TextPair = tuple[str, str]  # query and passage
ScorePairs = Callable[[Sequence[TextPair]], list[float]]

TOLERANCE = 1e-4  # of the largest score, and absolute: other kernels add in another order
_BATCH = 32


class ExportCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How the scores of an exported model agree with cerank's, pair by pair."""

    library: str
    pairs: int
    largest: float  # difference among pairs that both read alike
    cut: int  # pairs that the library cuts at another place, such as those with a very long query
    largest_cut: float  # difference among these

    @property
    def text(self) -> str:
        """Return the result in a sentence."""
        text = f"{self.library} loads it; on {counted(self.pairs, 'pair')} scores differ by at most {self.largest:.1e}"
        if self.cut:
            them = f"{counted(self.cut, 'pair')} that {self.library} cuts at another place"
            text += f", and by {self.largest_cut:.1e} on {them}"
        return text


def check_scores(
    folder: Path, form: ExportFormat, reranker: FinishedReranker, pairs: Sequence[TextPair]
) -> ExportCheck:
    """Return how the exported model's scores agree with cerank's.

    Args:
        folder: the exported model.
        form: its format.
        reranker: the model that was exported.
        pairs: queries with passages.

    Raises:
        RunFailedError: they do not, though both read the same tokens. 8-bit models have no such limit.
        UsageError: the library is not installed.
    """
    scorer = Scorer(reranker.model, reranker.model.make_tokens(reranker.tokenizer, reranker.limits))
    own = scorer.score(pairs)
    name, score = library_scorer(folder, form, reranker)
    theirs = score(pairs)
    alike = _read_alike(reranker, pairs)
    differences = [abs(left - right) for left, right in zip(own, theirs, strict=True)]
    same = [difference for difference, is_alike in zip(differences, alike, strict=True) if is_alike]
    cut = [difference for difference, is_alike in zip(differences, alike, strict=True) if not is_alike]
    check = ExportCheck(
        library=name,
        pairs=len(pairs),
        largest=max(same, default=0.0),
        cut=len(cut),
        largest_cut=max(cut, default=0.0),
    )
    allowed = TOLERANCE * max(1.0, *map(abs, own))
    if form not in QUANTIZED and (not check.largest <= allowed or len(cut) > len(pairs) // 2):
        what = f"{name} gives other scores: they differ by up to {max(check.largest, check.largest_cut):.2g}"
        raise RunFailedError(what, where=str(folder), hint="nothing was kept; try another --as", code="scores-differ")
    return check


def _read_alike(reranker: FinishedReranker, pairs: Sequence[TextPair]) -> list[bool]:
    """Return of each pair whether cerank's tokens are those that the tokenizer alone gives, cut as it cuts."""
    model, tokenizer, limits, _ = reranker
    if model.pooling == "answer":
        return [True] * len(pairs)
    tokens = model.make_tokens(tokenizer, limits)
    tokens.add("query", [query for query, _ in pairs], lambda texts: texts)
    tokens.add("document", [passage for _, passage in pairs], lambda texts: texts)
    out = []
    for query, passage in pairs:
        alone = tokenizer(model.query_prompt + query, passage, truncation=True, max_length=limits.max_length)
        out.append(list(tokens.pair(query, passage).ids) == list(alone["input_ids"]))
    return out


def library_scorer(folder: Path, form: ExportFormat, reranker: FinishedReranker) -> tuple[str, ScorePairs]:
    """Return the library's name, and a function that scores pairs with what it loads from the folder.

    Raises:
        UsageError: the library is not installed.
    """
    if form == "sentence-transformers":
        return "sentence-transformers", _by_sentence_transformers(folder)
    if form == "transformers":
        return "transformers", _by_language_model(folder, reranker) if reranker.model.pooling == "answer" else (
            _by_classifier(folder, reranker)
        )
    library = "openvino" if form.startswith("openvino") else "onnxruntime"
    return library, graph_scorer(folder, form, reranker.model.query_prompt)


def _by_sentence_transformers(folder: Path) -> ScorePairs:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        hint = "pip install 'cerank[bench]'"
        raise UsageError("sentence-transformers is not installed", hint=hint, code="library-missing") from error
    model = CrossEncoder(str(folder), device="cpu", trust_remote_code=False, local_files_only=True)

    def score(pairs: Sequence[TextPair]) -> list[float]:
        return [float(value) for value in model.predict(list(pairs), batch_size=_BATCH, show_progress_bar=False)]

    return score


def _by_classifier(folder: Path, reranker: FinishedReranker) -> ScorePairs:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, local_files_only=True, dtype=torch.float32
    ).eval()
    prompt, to_scores = reranker.model.query_prompt, reranker.model.score_of_logits

    @torch.inference_mode()
    def score(pairs: Sequence[TextPair]) -> list[float]:
        out: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            queries, passages = [prompt + query for query, _ in part], [passage for _, passage in part]
            batch = tokenizer(queries, passages, padding=True, truncation=True, return_tensors="pt")
            out += to_scores(model(**batch).logits).tolist()
        return out

    return score


def _by_language_model(folder: Path, reranker: FinishedReranker) -> ScorePairs:
    """Return a scorer with the prompts that cerank writes, and the whole model as transformers computes it."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    own: Any = reranker.model
    kinds: dict[str, Any] = {
        "causal": AutoModelForCausalLM,
        "causal-classifier": AutoModelForSequenceClassification,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }
    kind = own.declared.kind
    safe = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True, "dtype": torch.float32}
    model = kinds[kind].from_pretrained(folder, **safe).eval()
    tokens = own.make_tokens(reranker.tokenizer, reranker.limits)
    answers = list(own.answers)

    @torch.inference_mode()
    def score(pairs: Sequence[TextPair]) -> list[float]:
        tokens.add("query", [query for query, _ in pairs], lambda texts: texts)
        tokens.add("document", [passage for _, passage in pairs], lambda texts: texts)
        out: list[float] = []
        for query, passage in pairs:  # one by one: nothing is padded, so nothing depends on the side of padding
            ids = pad_pairs([tokens.pair(query, passage)], 0, torch.device("cpu"), has_types=False).ids
            if kind == "encoder-decoder":
                start = torch.tensor([[model.config.decoder_start_token_id]])
                logits = model(input_ids=ids, decoder_input_ids=start).logits[0, 0, answers]
                out.append(float(logits.log_softmax(dim=-1)[0]))
            elif kind == "causal-classifier":
                model.config.pad_token_id = model.config.pad_token_id or 0
                out.append(float(model(input_ids=ids).logits[0, 0]))
            else:
                logits = model(input_ids=ids, logits_to_keep=1).logits[0, -1, answers]
                out.append(float(logits[0] - logits[1]) if len(answers) == 2 else float(logits[0]))
        return out

    return score


def graph_scorer(folder: Path, form: ExportFormat, query_prompt: str = "") -> ScorePairs:
    """Return a function that scores pairs with an exported graph on the CPU and the exported tokenizer alone."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    path = folder / GRAPH_FILES[form]
    names, run = _openvino_graph(path) if form.startswith("openvino") else _onnx_graph(path)

    def score(pairs: Sequence[TextPair]) -> list[float]:
        out = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda place: (len(pairs[place][0]) + len(pairs[place][1]), place))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            queries = [query_prompt + pairs[place][0] for place in places]
            passages = [pairs[place][1] for place in places]
            batch = tokenizer(queries, passages, padding=True, truncation=True, return_tensors="np")
            logits = run({name: batch[name].astype("int64") for name in names})
            for place, value in zip(places, logits[:, 0], strict=True):
                out[place] = float(value)
        return out

    return score


def _onnx_graph(path: Path) -> tuple[list[str], Callable[[dict[str, Any]], Any]]:
    """Return a graph's inputs, and a function from them to its scores (pairs, 1), by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [entry.name for entry in session.get_inputs()], lambda inputs: session.run(None, inputs)[0]


def _openvino_graph(path: Path) -> tuple[list[str], Callable[[dict[str, Any]], Any]]:
    """Return the same by OpenVINO; what is not in 8 bits is in float32, where it would choose bf16 by itself."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", hints)
    return [entry.get_any_name() for entry in model.inputs], lambda inputs: model(inputs)[0]


class SpeedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs per second of two scorers on the same pairs, in alternation on this machine."""

    reference: float
    exported: float

    @property
    def ratio(self) -> float:
        """Return how many times as fast the exported model is."""
        return self.exported / self.reference


def measure_speed(
    reference: ScorePairs, exported: ScorePairs, pairs: Sequence[TextPair], rounds: int = 3
) -> SpeedComparison:
    """Return the speed of both, each its fastest of some rounds that alternate, after one that is not counted."""
    best = {"reference": float("inf"), "exported": float("inf")}
    for number in range(rounds + 1):
        for name, score in (("reference", reference), ("exported", exported)):
            began = time.perf_counter()
            score(pairs)
            if number:
                best[name] = min(best[name], time.perf_counter() - began)
    return SpeedComparison(reference=len(pairs) / best["reference"], exported=len(pairs) / best["exported"])
