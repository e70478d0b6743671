"""ADE20K's scene parsing benchmark: 150 classes, indoors and outdoors."""

import tensorflow_datasets as tfds

from unet_jax.batch import IGNORED
from unet_jax.datasets.archive import read_text
from unet_jax.datasets.encoding import Encoding, voc_palette
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.layout import Layout, match
from unet_jax.datasets.published import Names, PublishedBuilder

URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
COUNT = 150


class Ade20k(PublishedBuilder):
    """`ADEChallengeData2016`, as a folder or a zip. A mask's 0 is "other" and ignored; its 1 to
    150 are classes 0 to 149.

    References:
      Zhou et al., 2017. https://doi.org/10.1109/CVPR.2017.544
    """

    VERSION = tfds.core.Version("1.0.0")
    TITLE = "ADE20K"
    LAYOUTS = (Names(("images", "annotations", "objectInfo150.txt")),)
    SOURCE = "python scripts/prepare_data.py --dataset ade20k --download"
    NUM_CLASSES = COUNT
    ENCODING = Encoding({0: IGNORED, **{value: value - 1 for value in range(1, COUNT + 1)}})

    def layout(self) -> Layout:
        files = self.files
        pairs = []
        for split, folder in (("train", "training"), ("val", "validation")):
            pairs += match(files, f"images/{folder}", f"annotations/{folder}", split=split)
        classes = _class_names(read_text(files, "objectInfo150.txt"))
        return Layout(files, pairs, [self.ENCODING], classes, voc_palette(COUNT + 1)[1:])


def _class_names(text: str) -> list[str]:
    """The first of each class's names; columns are index, three numbers, and `wall`, or
    `building, edifice`, after tabs."""
    names = []
    for line in text.splitlines()[1:]:
        if line.strip():
            cells = line.split("\t")
            name = cells[-1].split(",")[0].strip()
            if len(cells) != 5 or cells[0].strip() != str(len(names) + 1) or not name:
                raise DataError(
                    f"objectInfo150.txt: {line!r} is not {len(names) + 1}, three numbers and names"
                )
            names.append(name)
    if len(names) != COUNT:
        raise DataError(f"objectInfo150.txt: names {len(names)} classes; {COUNT} are expected")
    return names
