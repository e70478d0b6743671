"""All that docs/benchmarks.md shows of a device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from parity.benchmark.contender import Precision
from parity.benchmark.networks import title
from parity.benchmark.plan import Plan, Subject
from parity.benchmark.result import Results
from unet_jax.config import Config, load

Run = Callable[[Config, Plan], Results]


class Case(NamedTuple):
    """One file of the suite.

    Attributes:
      name: The file's, after its device's.
      subject: What is measured.
      config: Of which network.
      precisions: In what.
    """

    name: str
    subject: Subject
    config: Config
    precisions: tuple[Precision, ...]

    @property
    def title(self) -> str:
        """Network, size and batch."""
        height, width = self.config.data.size
        return f"{title(self.config)}, {height}×{width}, batch {self.config.train.batch_size}"


def _full_size(preset: str, size: tuple[int, int], batch_size: int) -> Config:
    """A preset's network on rendered scenes, which need no download.

    Of scenes, so many that an epoch has 57 steps of a GPU's batch, and its beginning does not count
    for much.
    """
    config, scenes = load(preset), load("shapes").data
    data = replace(scenes, size=size, stored_size=None, scenes=1024, binary=True, val_fraction=0.1)
    return replace(
        config, data=data, train=replace(config.train, batch_size=batch_size, accumulate=1)
    )


def _gpu() -> list[Case]:
    cases = []
    for network, preset in (("residual", "carvana"), ("plain", "plain-carvana-yaml")):
        for size in ((256, 256), (320, 480)):
            config = _full_size(preset, size, 16)
            for subject in ("train", "infer", "end-to-end", "scaling"):
                name = f"{network}-{size[0]}x{size[1]}-{subject}"
                cases.append(Case(name, subject, config, ("bfloat16",)))
    # A vendor's published shape of the plain U-Net.
    vendor = _full_size("plain-carvana-yaml", (572, 572), 8)
    return [*cases, Case("plain-572x572-train", "train", vendor, ("bfloat16", "float16", "tf32"))]


def _cpu() -> list[Case]:
    shapes, cars = load("shapes"), load("carvana-small")
    plain = replace(cars.model, architecture="plain", norm="batch")
    full = _full_size("carvana", (256, 256), 2)
    rows: tuple[tuple[str, Subject, Config], ...] = (
        ("shapes-train", "train", shapes),
        ("shapes-infer", "infer", shapes),
        ("shapes-end-to-end", "end-to-end", shapes),
        ("shapes-scaling", "scaling", shapes),
        ("carvana-small-train", "train", cars),
        ("carvana-small-infer", "infer", cars),
        ("carvana-small-plain-train", "train", replace(cars, model=plain)),
        ("carvana-small-plain-infer", "infer", replace(cars, model=plain)),
        ("carvana-medium-train", "train", load("carvana-medium")),
        ("carvana-medium-infer", "infer", load("carvana-medium")),
        ("carvana-256x256-train", "train", full),
        ("carvana-256x256-infer", "infer", full),
    )
    return [Case(*row, ("float32",)) for row in rows]


GPU, CPU = _gpu(), _cpu()


def run_suite(suite: list[Case], plan: Plan, folder: Path, device: str, run: Run) -> None:
    """Measures each case, and writes its file as soon as it is measured.

    Args:
      suite: The device's.
      plan: How long.
      folder: Where to.
      device: Its name, which files begin with.
      run: Measures a case, and prints its table.
    """
    slug = "-".join("".join(c if c.isalnum() else " " for c in device.lower()).split())
    for case in suite:
        own = replace(plan, subject=case.subject, precisions=case.precisions)
        run(case.config, own).save(folder / f"{slug}--{case.name}.json")
