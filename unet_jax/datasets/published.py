"""Builders of data sets that have a publisher: known layouts, looked for wherever they lie."""

from typing import NamedTuple

from unet_jax.config import DataConfig
from unet_jax.datasets.archive import Files, broken, cut, find_root, open_files
from unet_jax.datasets.errors import DataError
from unet_jax.datasets.files import FileBuilder


class Names(NamedTuple):
    """What lies side by side in one layout: folders, files, or zips of those names.

    Attributes:
      needed: Without which it is not that layout.
      more: What may be there, too.
    """

    needed: tuple[str, ...]
    more: tuple[str, ...] = ()


class PublishedBuilder(FileBuilder):
    """A subclass names the set (`TITLE`), its layouts, and how to get it (`SOURCE`)."""

    TITLE: str
    LAYOUTS: tuple[Names, ...]
    SOURCE: str

    @classmethod
    def locate(cls, config: DataConfig) -> Files:
        if config.data_dir is None:
            raise DataError(f"--dataset {config.dataset} needs --data-dir{cls.advice()}")
        place = config.data_dir.expanduser()
        files = open_files(place) if place.exists() else {}
        problems = broken(files)
        files = {path: entry for path, entry in files.items() if not entry.problem}
        for names in cls.LAYOUTS:
            root = find_root(files, names.needed)
            if root is not None:
                found = cut(files, root, (*names.needed, *names.more))
                for name in names.more if root == "" else ():
                    if name in problems and not any(p.startswith(f"{name}/") for p in found):
                        raise DataError(problems[name])  # Without it the set would be another.
                return found
        looked = "; or ".join(", ".join(names.needed) for names in cls.LAYOUTS)
        state = "" if place.exists() else ", which does not exist"
        raise DataError(
            f"no {cls.TITLE} data: looked for {looked} – as they are or as zips – in "
            + "\n  ".join([f"{place}{state}", *problems.values()])
            + cls.advice()
        )

    @classmethod
    def advice(cls) -> str:
        """How to get the set, or do without; lines that begin with a line break."""
        return f"\n  get it: {cls.SOURCE}\n  or use --dataset shapes, which needs no data"
