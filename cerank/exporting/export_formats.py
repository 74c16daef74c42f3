"""The formats that a re-ranker can be written in; a module without torch, so that the command line may name them."""

from __future__ import annotations

from typing import Literal, get_args

ExportFormat = Literal["sentence-transformers", "transformers", "onnx", "onnx-int8"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
