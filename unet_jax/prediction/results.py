"""What is written of the images: files of each one, and files of them all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from unet_jax.prediction.coco import coco_file, regions
from unet_jax.prediction.inputs import Input
from unet_jax.prediction.outputs import outputs, target, write_outputs
from unet_jax.prediction.predict_options import PredictOptions
from unet_jax.prediction.prediction import Prediction
from unet_jax.prediction.run_length import encode_runs, submission


class Done(NamedTuple):
    """An image whose files are written, and what it adds to those of all images."""

    input: Input
    native: tuple[int, int]
    runs: str
    regions: list[dict[str, Any]]


class Results:
    """The files that were asked for.

    Attributes:
      keep: Whether they need the probabilities.
    """

    def __init__(self, options: PredictOptions, classes: Sequence[str]) -> None:
        """Raises:
        ValueError: What is to be written does not go with these classes.
        """
        if options.rle is not None and len(classes) > 2:
            raise ValueError(f"--rle: needs two classes, and there are {len(classes)}")
        self.options, self.classes = options, classes
        self.outputs = outputs(options.kinds, len(classes))
        self.keep = bool({"probabilities", "probabilities16"} & set(options.kinds))

    def base(self, input: Input) -> Path:
        """An image's files, without what `Output` adds to their names."""
        assert self.options.out is not None
        return self.options.out.expanduser() / input.name

    def refuse_to_overwrite(self, inputs: Sequence[Input]) -> None:
        """Raises `ValueError` if a file is there already, and may not be written over."""
        whole = [path.expanduser() for path in (self.options.rle, self.options.coco) if path]
        for path in whole:
            if path.is_dir():
                raise ValueError(f"{path} is a folder; a file's name is needed")
        if self.options.out is not None and self.options.out.expanduser().is_file():
            raise ValueError(f"--out: {self.options.out} is a file; a folder is needed")
        if self.options.force:
            return
        targets = [target(self.base(each), output) for each in inputs for output in self.outputs]
        existing = [path for path in whole + targets if path.exists()]
        if existing:
            more = f" and {len(existing) - 1:,} more" if len(existing) > 1 else ""
            raise ValueError(f"{existing[0]}{more} would be written over; --force does that")

    def write(self, input: Input, prediction: Prediction) -> Done:
        """Writes an image's files.

        Raises:
          OSError: One of them cannot be written.
        """
        if self.outputs:
            write_outputs(prediction, self.base(input), self.outputs)
        runs = "" if self.options.rle is None else encode_runs(prediction.mask)
        covered = [] if self.options.coco is None else regions(prediction.mask, self.classes)
        return Done(input, prediction.picture.native, runs, covered)

    @property
    def weight(self) -> int:
        """Bytes a pixel that writing takes, roughly."""
        probabilities = 4 * len(self.classes) if self.keep else 0
        return 4 + probabilities + 12 * ("overlay" in self.options.kinds)

    @contextmanager
    def of_all(self) -> Iterator[Callable[[Done], None]]:
        """Takes images one by one; the files of them all are there when all have been taken.

        Raises:
          OSError: One of these cannot be written.
        """
        with ExitStack() as files:
            table = coco = None
            if self.options.rle is not None:
                table = files.enter_context(submission(_made(self.options.rle)))
            if self.options.coco is not None:
                coco = files.enter_context(coco_file(_made(self.options.coco), self.classes))

            def add(done: Done) -> None:
                if table is not None:
                    table.writerow((done.input.path.name, done.runs))
                if coco is not None:
                    coco.add(done.input.file, done.native, done.regions)

            yield add


def _made(path: Path) -> Path:
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
