"""Model folders that try to run code or to reach out of themselves: refused before transformers sees them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cerank.errors import CerankError
from cerank.models import cross_encoder, model_folders
from cerank.models.bases import BaseFiles, locate
from tests.fuzzing.test_tokens import CANARY
from tests.model_fixtures import write_tiny
from tests.refusals import refused


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that loads."""
    return write_tiny(tmp_path_factory.mktemp("base")).folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def _with(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


def _evil_code(folder: Path) -> Path:
    """Python and pickles that leave a file behind wherever they run."""
    touched = folder.parent / "touched"
    code = f"open({str(touched)!r}, 'w').write('run')\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "sitecustomize.py", "torch.py"):
        (folder / name).write_text(code)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (code,)

    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    return touched


MAP = {
    "AutoConfig": "configuration_evil.C",
    "AutoModel": "modeling_evil.M",
    "AutoTokenizer": ["tokenization_evil.T", None],
}
SPOILED: dict[str, Callable[[Path], object]] = {
    "auto_map in the config": lambda at: _with(at, "config.json", auto_map=MAP),
    "trust_remote_code in the config": lambda at: _with(at, "config.json", trust_remote_code=True),
    "auto_map in the tokenizer's": lambda at: _with(at, "tokenizer_config.json", auto_map=MAP),
    "auto_map of another repository": lambda at: _with(at, "config.json", auto_map={"AutoModel": "owner/evil--m.M"}),
    "a kernel from the hub": lambda at: _with(at, "config.json", attn_implementation="owner/evil-kernel"),
    "a kernel inside": lambda at: _with(at, "config.json", text_config={"_attn_implementation": "owner/evil"}),
    "an adapter": lambda at: _with(at, "adapter_config.json", base_model_name_or_path="../secret"),
    "quantized": lambda at: _with(at, "config.json", quantization_config={"quant_method": "gptq"}),
    "a list": lambda at: (at / "config.json").write_text("[]"),
    "no JSON": lambda at: (at / "config.json").write_text("{"),
    "deep JSON": lambda at: (at / "config.json").write_text('{"a":' * 100_000),
    "a token": lambda at: _with(at, "config.json", _name_or_path=f"https://x:{CANARY}@host/model"),
    "weights above": lambda at: _with(at, "model.safetensors.index.json", weight_map={"a": "../secret.safetensors"}),
    "weights at the root": lambda at: _with(at, "model.safetensors.index.json", weight_map={"a": "/s.safetensors"}),
    "pickled weights": lambda at: _with(at, "model.safetensors.index.json", weight_map={"a": "pytorch_model.bin"}),
    "weights that are a number": lambda at: _with(at, "model.safetensors.index.json", weight_map={"a": 1}),
    "no weights listed": lambda at: _with(at, "model.safetensors.index.json", weight_map=None),
    "a link out": lambda at: _linked(at, "vocab.txt"),
    "a linked folder": lambda at: (at / "1_Pooling").symlink_to("/etc"),
    "a link to nothing": lambda at: (at / "merges.txt").symlink_to("nothing"),
    "a circle": lambda at: (at / "a.json").symlink_to("a.json"),
    "a pipe": lambda at: os.mkfifo(at / "added_tokens.json"),
}  # fmt: skip


def _linked(folder: Path, name: str) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("secret\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)


@pytest.mark.parametrize("name", SPOILED)
def test_a_folder_that_reaches_out_is_refused_and_nothing_of_it_runs(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TRUST_REMOTE_CODE", "1")
    monkeypatch.setenv("TRUST_REMOTE_CODE", "true")
    touched = _evil_code(folder)
    SPOILED[name](folder)
    files = BaseFiles("x", folder, "mean", "")
    for load in (
        lambda: locate(str(folder), fetch=False),
        lambda: cross_encoder.load(files, "mean", 1),
        lambda: cross_encoder.load_tokenizer(folder),
    ):
        with pytest.raises(CerankError) as caught:
            load()
        assert str(folder) in caught.value.where
        assert CANARY not in str(caught.value)
    assert not touched.exists()


@pytest.mark.slow
def test_code_and_pickles_beside_sound_weights_are_never_touched(folder: Path) -> None:
    """In a process of its own whose working folder is the model's, where a module could stand in for another."""
    touched = _evil_code(folder)
    program = (
        "import sys; sys.path = [p for p in sys.path if p]\n"
        "from cerank.models.bases import locate\nfrom cerank.models import cross_encoder as model\n"
        f"files = locate({str(folder)!r}, fetch=False)\n"
        "model.load(files, 'mean', 1); model.load_tokenizer(files.folder); print('loaded')\n"
    )
    environ = {**os.environ, "HF_TRUST_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert "loaded" in done.stdout, done.stderr[-2000:]
    assert not touched.exists()


def _place(folder: Path) -> str:
    """Where the folder is refused, or the folder where it loads; any error but cerank's goes out."""
    try:
        cross_encoder.load(locate(str(folder), fetch=False), "mean", 1)
        cross_encoder.load_tokenizer(folder)
    except CerankError as error:
        return error.where
    return str(folder)


HOSTILE_VALUES: dict[str, object] = {
    "hidden_size": 10**15, "num_hidden_layers": -1, "num_attention_heads": 0, "vocab_size": "many",
    "model_type": "../x", "architectures": [1], "hidden_act": "__import__('os')", "dtype": "os.system",
    "id2label": {"a": "b"}, "layer_norm_eps": "x", "tokenizer_class": "os.system", "max_position_embeddings": None,
    "problem_type": 3, "is_decoder": "yes", "use_cache": [], "transformers_version": {}, "pad_token_id": 10**9,
}  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE_VALUES)
def test_a_config_of_wrong_values_loads_or_is_refused_with_its_folder(key: str, folder: Path) -> None:
    _with(folder, "config.json", **{key: HOSTILE_VALUES[key]})
    assert str(folder) in _place(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b'{"version":"1.0","model":{"type":"Evil"}}'),
        ("tokenizer_config.json", b'{"tokenizer_class":"os.system"}'),
        ("tokenizer_config.json", b'{"tokenizer_class":5}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder":{"x":[]}}'),
        ("tokenizer_config.json", b'{"model_max_length":"x","extra_special_tokens":5}'),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", b""),
    ],
)
def test_files_that_are_not_what_they_are_called_load_or_are_refused(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    assert str(folder) in _place(folder)


def test_the_hubs_own_links_into_its_cache_are_followed(sound: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(sound.iterdir())):
        if path.is_file():
            shutil.copy(path, blobs / str(number))
            (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    model_folders.check(snapshot)
    (snapshot / "evil.json").symlink_to("../../elsewhere.json")
    (tmp_path / "elsewhere.json").write_text("{}")
    with refused(CerankError, "link-out-of-folder"):
        model_folders.check(snapshot)
