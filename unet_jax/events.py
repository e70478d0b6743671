"""TensorBoard's event files, written with TensorBoard's own protocol buffers."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

# Made when the modules load, where a type checker does not see them.
Event: Any = vars(event_pb2)["Event"]
Summary: Any = vars(summary_pb2)["Summary"]


class Events:
    """Appends to an event file in a folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

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
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, values: list[Any], step: int) -> None:
        summary = Summary(value=values)
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
