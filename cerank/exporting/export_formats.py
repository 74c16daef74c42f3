"""The formats that a re-ranker can be written in; a module without torch, so that the command line may name them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

ExportFormat = Literal[
    "sentence-transformers", "transformers", "onnx", "onnx-int8", "onnx-int8-static", "openvino", "openvino-int8"
]
RANKINGS = "trec"  # no format of a model: the rankings of its run
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

QUANTIZED: dict[ExportFormat, ExportFormat] = {  # format of 8 bits -> the same in float32
    "onnx-int8": "onnx",
    "onnx-int8-static": "onnx",
    "openvino-int8": "openvino",
}
CALIBRATED: tuple[ExportFormat, ...] = ("onnx-int8-static", "openvino-int8")  # ranges of inputs measured beforehand
GRAPH_FILES: dict[ExportFormat, Path] = {  # where sentence-transformers and text-embeddings-inference look for them
    "onnx": Path("onnx") / "model.onnx",
    "onnx-int8": Path("onnx") / "model_quint8.onnx",
    "onnx-int8-static": Path("onnx") / "model_static_quint8.onnx",
    "openvino": Path("openvino") / "openvino_model.xml",
    "openvino-int8": Path("openvino") / "openvino_model_qint8_quantized.xml",
}
LIBRARIES: dict[ExportFormat, tuple[str, ...]] = {  # that each graph is written with; an extra installs them
    "onnx": ("onnx", "onnxruntime"),
    "onnx-int8": ("onnx", "onnxruntime"),
    "onnx-int8-static": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "openvino-int8": ("onnx", "openvino", "nncf"),
}
