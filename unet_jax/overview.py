"""What is printed of a prepared data set."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from unet_jax.config import DataConfig
from unet_jax.datasets import IGNORED
from unet_jax.datasets.builder import Facts
from unet_jax.split import Split
from unet_jax.statistics import Statistics

LISTED = 20  # Classes.


def overview(
    facts: Facts, split: Split, statistics: Statistics, config: DataConfig
) -> Iterator[RenderableType]:
    """Tables of the samples and of the classes, and settings to paste into a preset."""
    yield _samples(facts, split, config)
    yield _classes(facts, statistics)
    yield _moments(statistics)


def _samples(facts: Facts, split: Split, config: DataConfig) -> Table:
    count, groups, published = len(facts.names), len(set(facts.groups)), Counter(facts.splits)
    pairs = f"{count:,}" + (f" in {groups:,} groups" if groups < count else "")
    sides = f"{len(split.train):,} training, {len(split.validation):,} validation"
    if split.test:
        sides += f", {len(split.test):,} test"
    how = "as published" if published["val"] else f"drawn with split_seed {config.split_seed}"
    title = f"{config.dataset} at {_by(config.prepared_size)}"
    if config.prepared_size != config.size:
        title += f", for a network at {_by(config.size)}"
    table = Table(title=title, title_style="bold", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # A path has no spaces to break at.
    if config.data_dir is not None:
        table.add_row("files", Text(str(config.data_dir)))
    table.add_row("masks", Text(facts.note or "as their publisher describes them"))
    table.add_row("pairs", pairs)
    table.add_row("split", f"{sides}; {how}")
    table.add_row("native sizes", _sizes(facts.native))
    return table


def _sizes(native: Sequence[Sequence[int]]) -> str:
    sizes = sorted(native, key=lambda size: (size[0] * size[1], size[0]))
    different = len({tuple(size) for size in sizes})
    if different == 1:
        return f"{_by(sizes[0])}, all of them (height × width)"
    middle = sizes[len(sizes) // 2]
    return (
        f"{_by(sizes[0])} the smallest, {_by(middle)} the median, {_by(sizes[-1])} the largest; "
        f"{different:,} different ones (height × width)"
    )


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}×{size[1]}"


def _classes(facts: Facts, statistics: Statistics) -> Table:
    """A row for each of the largest classes; the rest are counted."""
    count, shares = len(facts.classes), statistics.shares.tolist()
    pictures = statistics.pictures.tolist()
    table = Table("class", title_style="bold")
    table.add_column("of all pixels", justify="right")
    table.add_column("in pictures", justify="right")
    order = sorted(range(count), key=lambda index: -shares[index])
    for index in order[:LISTED]:
        square = Text("■ ", style="rgb({},{},{})".format(*facts.palette[index]))
        name = square + Text(facts.classes[index], style="default")
        table.add_row(name, _percent(shares[index]), f"{pictures[index]:,}")
    if rest := order[LISTED:]:
        table.add_row(f"… and {len(rest)} more", _percent(sum(shares[index] for index in rest)), "")
    table.add_row("ignored", _percent(shares[IGNORED]), f"{pictures[IGNORED]:,}", style="dim")
    if absent := pictures[:count].count(0):
        table.caption = f"{absent} of the {count} classes never occur."
    return table


def _percent(share: float) -> str:
    return "< 0.01 %" if 0 < share < 5e-5 else f"{100 * share:.2f} %"


def _moments(statistics: Statistics) -> Text:
    """The training images' moments, as YAML."""
    lines = ["Mean and deviation of the training images, as a preset takes them:", "data:"]
    for name, values in (("mean", statistics.mean), ("std", statistics.std)):
        lines.append(f"  {name}: [{', '.join(f'{value:.4f}' for value in values)}]")
    return Text("\n".join(lines))
