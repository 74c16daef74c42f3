"""Turn an ONNX graph of a re-ranker into one of 8-bit products, or into OpenVINO's format.

Invariant: weights and inputs of onnxruntime's products are unsigned: with signed weights AVX2 adds with saturation, and
scores would depend on the processor.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Inputs = Mapping[str, Any]  # name -> array (1, tokens) of one pair


def quantize_dynamic(source: Path, target: Path) -> None:
    """Write the graph with 8-bit matrix products whose inputs are rounded while it runs, each by its own range."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    with _quiet():
        quantize(source, target, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])


def quantize_static(source: Path, target: Path, calibration: Sequence[Inputs]) -> None:
    """Write the graph with 8-bit matrix products whose inputs have ranges that were measured beforehand.

    Args:
        source: the graph in float32.
        target: where to write.
        calibration: pairs as a tokenizer returns them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pairs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        """The calibration pairs, one by one."""

        def __init__(self) -> None:
            self._rows = iter(calibration)

        def get_next(self) -> Any:
            row = next(self._rows, None)
            return row and {name: row[name].astype("int64") for name in graph_inputs(source)}

    prepared = source.with_name("prepared.onnx")
    with _quiet():
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize(
            prepared,
            target,
            Pairs(),
            op_types_to_quantize=["MatMul"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},  # products of two inputs, such as attention, stay in float32
        )


def write_openvino(source: Path, target: Path, calibration: Sequence[Inputs] | None) -> None:
    """Write the graph in OpenVINO's format: in float32, or in 8 bits with ranges measured beforehand.

    Args:
        source: the graph as ONNX.
        target: the .xml file; its weights lie beside it.
        calibration: pairs as a tokenizer returns them; None keeps float32.
    """
    import openvino

    model = openvino.convert_model(str(source))
    if calibration is not None:
        import nncf

        names = graph_inputs(source)
        rows = [{name: row[name].astype("int64") for name in names} for row in calibration]
        with _quiet():
            nncf.set_log_level(logging.ERROR)
            model = nncf.quantize(
                model, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
            )
    openvino.save_model(model, str(target), compress_to_fp16=False)


def graph_inputs(path: Path) -> list[str]:
    """Return the names of a graph's inputs."""
    import onnx

    return [entry.name for entry in onnx.load(str(path), load_external_data=False).graph.input]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' advice, which is about images, off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
