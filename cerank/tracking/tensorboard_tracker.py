"""TensorBoard: event files in the lab, written by the tensorboard package itself, without torch or TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cerank.text.table_data import Table, written
from cerank.tracking.tracker import Destination, MetricRow, Outcome, TrackedRun


class TensorboardTracker:
    """Writes the event file of one run; a second tracking of the run adds a file, which TensorBoard reads on from."""

    def __init__(self, run: TrackedRun, to: Destination) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = to.folder / to.project / run.key
        self.tracker_id = run.key
        self.where = f"{folder}; tensorboard --logdir {folder.parent}"
        self._writer = EventFileWriter(str(folder))
        self._last = 0
        if not to.tracker_id:
            lines = [f"| {key} | {value} |" for key, value in run.settings.items()]
            self._text("settings", "\n".join([f"**{run.title}**\n", "| setting | value |", "|---|---|", *lines]))

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Write values."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for row in rows:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in row.values.items()]
            self._writer.add_event(Event(wall_time=row.seconds, step=row.step, summary=Summary(value=values)))
            self._last = row.step
        self._writer.flush()

    def result(self, values: dict[str, float], tables: Sequence[Table], text: str) -> None:
        """Write final values as scalars of the last step, tables and verdict as Markdown."""
        self.log([MetricRow(self._last, time.time(), values)])
        for table in tables:
            self._text(table.name, written([table], "markdown"))
        self._text("verdict", text)

    def close(self, outcome: Outcome) -> None:
        """Write how the run ended, and close the file."""
        self._text("outcome", outcome)
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        """Write text as TensorBoard's plugin for texts reads it."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

        data = SummaryMetadata.PluginData(plugin_name="text", content=TextPluginData(version=0).SerializeToString())
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        value = Summary.Value(tag=f"{name}/text_summary", metadata=SummaryMetadata(plugin_data=data), tensor=tensor)
        self._writer.add_event(Event(wall_time=time.time(), step=self._last, summary=Summary(value=[value])))
