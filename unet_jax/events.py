"""TensorBoard's event files, written with TensorBoard's own protocol buffers."""

import contextlib
import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

# Made when the modules load, where a type checker does not see them.
Event: Any = vars(event_pb2)["Event"]
Summary: Any = vars(summary_pb2)["Summary"]
HistogramProto: Any = vars(summary_pb2)["HistogramProto"]
BINS = 64  # Of a histogram.


class Events:
    """Writes an event file of its own in a folder, event by event.

    TensorBoard's writer does so in a thread, whose errors come late, with its traceback.
    """

    def __init__(self, folder: Path) -> None:
        """Args:
          folder: Made if it does not exist.

        Raises:
          OSError: Nothing can be written, as from all methods.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds values by tag."""
        summary = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(summary, step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Adds a picture, stored as PNG."""
        png = io.BytesIO()
        image.save(png, "PNG")
        encoded = Summary.Image(
            height=image.height, width=image.width, encoded_image_string=png.getvalue()
        )
        self._add([Summary.Value(tag=tag, image=encoded)], step)

    def histograms(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Adds how the values of each array are distributed, leaving out those not finite."""
        values = []
        for tag, array in arrays.items():
            finite = array[np.isfinite(array)].astype(np.float64)
            if finite.size:
                counts, edges = np.histogram(finite, BINS)
                histogram = HistogramProto(
                    min=finite.min(),
                    max=finite.max(),
                    num=finite.size,
                    sum=finite.sum(),
                    sum_squares=np.square(finite).sum(),
                    bucket_limit=edges[1:].tolist(),
                    bucket=counts.tolist(),
                )
                values.append(Summary.Value(tag=tag, histo=histogram))
        self._add(values, step)

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):  # What is still in its buffer was said to have failed.
            self._file.close()

    def _add(self, values: list[Any], step: int) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()
