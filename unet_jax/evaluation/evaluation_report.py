"""What an evaluation leaves behind: report.md, report.html, results.json and pictures."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_jax.evaluation import bootstrap, calibration
from unet_jax.evaluation.calibration import best_threshold
from unet_jax.evaluation.evaluation import Evaluation, Worst
from unet_jax.evaluation.measured import Estimate, Measured
from unet_jax.evaluation.paper import Code, Figure, Heading, Part, Table, Text, to_html, to_markdown
from unet_jax.evaluation.samples import Samples
from unet_jax.evaluation.tally import Tally
from unet_jax.visualize import plot_confusion, plot_reliability, prediction_panel
from unet_jax.weights import Trained

SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "boundary_f": "boundary F",
}
OWN = re.compile(
    r"report\.(md|html)|results\.json|reliability\.png|worst"
    r"|confusion(_\d+_[^/]*)?\.png|worst(_\d+_[^/]*)?\.jpg|worst/\d\d_[^/]+\.jpg"
)
"""What lies in a report's folder."""
BY_CLASS = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy", "boundary_f": "boundary F"}
SIZES = {"training": "At the training's size", "native": "At native size"}


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A network, and what it reached.

    Attributes:
      label: Short, and no other network's.
      place: The run's folder, or the file.
      framework: What computed: "JAX" or "PyTorch".
      trained: The network.
      samples: What it was evaluated on.
      evaluation: The counts.
      measured: Scores at each size, by the names of `Evaluation.tallies`.
      recorded: What the run itself has written down for this state; empty if that is not known, or
        of other samples.
    """

    label: str
    place: Path
    framework: str
    trained: Trained
    samples: Samples
    evaluation: Evaluation
    measured: Mapping[str, Measured]
    recorded: Mapping[str, float]

    @property
    def tally(self) -> Tally:
        """At native size, if there is one."""
        return self.evaluation.native or self.evaluation.trained

    def size(self, name: str) -> str:
        """In words."""
        if name == "training":
            return "{}×{}".format(*self.samples.config.size)
        sizes = sorted(set(self.samples.native))
        first = "{}×{}".format(*sizes[0])
        return first if len(sizes) == 1 else f"{first} to {'{}×{}'.format(*sizes[-1])}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report says.

    Attributes:
      networks: At least one; the others are compared with the first.
      draws, seed: Of the bootstrap.
      settings: How images met the networks.
      command: That made the report.
      versions: Of programs.
    """

    networks: Sequence[Evaluated]
    draws: int
    seed: int
    settings: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]

    @property
    def samples(self) -> Samples:
        """Of the first network: all have the same, perhaps at different sizes."""
        return self.networks[0].samples

    @property
    def groups(self) -> int:
        return len(set(self.samples.groups))

    def write(self, folder: Path) -> None:
        """Writes the report, which is whole or not there.

        Args:
          folder: Made; replaced if it is there.
        """
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            (part / "worst").mkdir(parents=True)
            self._draw(part)
            title = f"Evaluation on {self.samples.config.dataset}, {self.samples.part}"
            parts = list(self._parts())
            (part / "report.md").write_text(to_markdown(title, parts), "utf-8")
            (part / "report.html").write_text(to_html(title, parts), "utf-8")
            (part / "results.json").write_text(json.dumps(self.results(), indent=1), "utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _draw(self, folder: Path) -> None:
        for network in self.networks:
            end = self._end(network)
            classes = network.samples.classes
            plot_confusion(network.tally.confusion, classes, folder / f"confusion{end}.png")
            if network.evaluation.worst:
                sheet = _panel(network, network.evaluation.worst)
                sheet.save(folder / f"worst{end}.jpg", quality=88)
            for n, worst in enumerate(network.evaluation.worst, 1):
                _panel(network, [worst]).save(folder / _picture(end, n, worst), quality=88)
        plot_reliability(
            {network.label: network.tally.calibration for network in self.networks},
            len(self.samples.classes),
            folder / "reliability.png",
        )

    def _end(self, network: Evaluated) -> str:
        """Of the names of a network's pictures, if there are several networks."""
        if len(self.networks) == 1:
            return ""
        # Labels may be the same where they are cut.
        return f"_{self.networks.index(network) + 1}_{_file_name(network.label)}"

    # What is said, in Markdown and in HTML.

    def _parts(self) -> Iterator[Part]:
        yield from self._about()
        for size, title in SIZES.items():
            if size in self.networks[0].measured:
                yield Heading(title)
                yield from self._scores(size)
                yield from self._classes(size)
        yield Heading("Confusion")
        yield Text(f"What the pixels of each true class were taken for, {self._where()}.")
        for network in self.networks:
            yield Figure(f"confusion{self._end(network)}.png", f"confusion, {network.label}")
        yield from self._calibration()
        yield from self._worst()
        yield Heading("How this was made")
        yield Code(self.command)
        yield Text(", ".join(f"{name} {version}" for name, version in self.versions.items()))

    def _where(self) -> str:
        return "at native size" if self.networks[0].evaluation.native else "at the training's size"

    def _about(self) -> Iterator[Part]:
        samples = self.samples
        rows = []
        for network in self.networks:
            facts = network.trained.facts
            state = [facts["state"]] if "state" in facts else []
            state += [f"step {facts['step']}"] if "step" in facts else []
            rows.append(
                (
                    network.label,
                    network.framework,
                    network.trained.model.architecture,
                    f"{parameters(network.trained):,}",
                    network.size("training"),
                    ", ".join(state) or "–",
                    str(network.place),
                )
            )
        headings = ("network", "computed by", "architecture", "parameters", "trained at")
        yield Table((*headings, "state", "from"), rows)
        groups = (
            f"{len(samples.names):,} samples, each its own group"
            if self.groups == len(samples.names)
            else f"{len(samples.names):,} samples in {self.groups:,} groups"
        )
        place = f", files in {samples.config.data_dir}" if samples.config.data_dir else ""
        yield Text(f"Data: {samples.config.dataset}, {samples.part}: {groups}{place}.")
        settings = ", ".join(f"{k} {v}" for k, v in self.settings.items())
        yield Text(f"Prediction: {settings or 'each image as a whole, as validation has it'}.")
        if samples.changed:
            yield Text(
                "The data is not what the run was trained on: all samples of these names are "
                "there, but some of the set's pixels, or other samples, have changed."
            )
        if self.draws:
            yield Text(
                f"Brackets hold 95 % confidence intervals: percentiles of {self.draws:,} bootstrap "
                f"resamples (seed {self.seed}) of groups, not of images or pixels. Pictures of one "
                "group, such as a car's views, resemble each other, so that intervals from "
                "resampled images would be too narrow. Each score is computed from pixels summed "
                "over all samples. The intervals say how far the choice of samples matters, not "
                "how far another training would."
            )
            if self.groups == len(samples.names):
                yield Text(
                    "Here nothing says which samples belong together. If some do, such as frames "
                    "of one drive, the intervals are too narrow, too."
                )
            if self.groups < bootstrap.FEW:
                yield Text(
                    f"With {self.groups} group{'s' * (self.groups > 1)} the intervals mean little."
                )
        for network in self.networks:
            if network.recorded:
                yield Text(f"{network.label}: {self._agreement(network)}")

    def _agreement(self, network: Evaluated) -> str:
        found = network.measured["training"].values
        apart = max(abs(value - float(found[name])) for name, value in network.recorded.items())
        same = (
            "the same"
            if apart < 5e-7
            else f"up to {apart:.1e} apart (a run validates in its --precision, this is float32)"
        )
        scores = ", ".join(f"{SCORES[n]} {v:.6f}" for n, v in network.recorded.items())
        return f"the run itself recorded {scores} for this state; found here: {same}."

    def _scores(self, size: str) -> Iterator[Part]:
        first, *others = self.networks
        headings = ["score", *(f"{n.label}, {n.size(size)}" for n in self.networks)]
        headings += [f"{other.label} − {first.label}" for other in others]
        rows = []
        for name, title in SCORES.items():
            cells = [shown(n.measured[size].estimate(name)) for n in self.networks]
            for other in others:
                apart = other.measured[size].minus(first.measured[size])
                cells.append(shown(apart.estimate(name), signed=True))
            rows.append([self._title(name, title), *cells])
        yield Table(headings, rows)

    def _title(self, name: str, title: str) -> str:
        """Of two classes, some scores are the foreground's; else they are means."""
        if name in ("accuracy", "mean_class_accuracy"):
            return title
        classes = self.samples.classes
        return f"{title} of {classes[1]}" if len(classes) == 2 else f"mean {title}"

    def _classes(self, size: str) -> Iterator[Part]:
        for network in self.networks:
            measured = network.measured[size]
            columns = [measured.estimates(f"{name}_per_class") for name in BY_CLASS]
            rows = [
                (name, *(shown(column[n]) for column in columns))
                for n, name in enumerate(network.samples.classes)
            ]
            first = "class" if len(self.networks) == 1 else f"{network.label}: class"
            yield Table((first, *BY_CLASS.values()), rows)

    def _calibration(self) -> Iterator[Part]:
        binary = len(self.samples.classes) == 2
        what = (
            f"the probability of {self.samples.classes[1]}"
            if binary
            else "the probability of the predicted class"
        )
        yield Heading("Calibration")
        yield Text(
            f"Of pixels with a probability of 0.8, 80 % should be right. Here it is {what}, in "
            f"{calibration.BINS} equal parts of 0..1. The expected calibration error is the mean "
            "distance between probability and frequency, weighed by pixels; the Brier score is the "
            "mean squared error of the probabilities. Both are 0 at best."
        )
        headings = ["network", "size", "calibration error", "Brier score"]
        rows = []
        for network in self.networks:
            for size, tally in network.evaluation.tallies.items():
                found = tally.calibration
                row = [network.label, network.size(size), f"{found.error:.4f}"]
                row.append(f"{found.brier_score:.4f}")
                if binary:
                    best, now = best_threshold(found.levels), network.measured[size].values["dice"]
                    row += [f"{best.value:.3f}", f"{best.dice:.4f}", f"{best.dice - now:+.4f}"]
                rows.append(row)
        if binary:
            headings += ["best threshold", "Dice with it", "gain"]
        yield Table(headings, rows)
        if binary:
            yield Text(
                f"The best threshold was chosen on this very split ({self.samples.part}), so that "
                "its Dice is too good here: judge it on another split, with --threshold."
            )
        yield Figure("reliability.png", f"reliability, {self._where()}")

    def _worst(self) -> Iterator[Part]:
        score = "Dice" if len(self.samples.classes) == 2 else "mean IoU of the classes that occur"
        yield Heading("Worst samples")
        yield Text(f"Those with the lowest {score}, {self._where()}; pictures are smaller.")
        for network in self.networks:
            end = self._end(network)
            yield Text(f"{network.label}, all on one sheet: worst{end}.jpg")
            for n, worst in enumerate(network.evaluation.worst, 1):
                yield Figure(_picture(end, n, worst), f"{n}. {worst.name}: {worst.score:.4f}")

    # The same as numbers.

    def results(self) -> dict[str, Any]:
        """What `results.json` holds."""
        samples, config = self.samples, self.samples.config
        first, *others = self.networks
        return {
            "command": self.command,
            "versions": dict(self.versions),
            "data": {
                "dataset": config.dataset,
                "data_dir": config.data_dir and str(config.data_dir),
                "split": samples.part,
                "samples": len(samples.names),
                "groups": self.groups,
                "classes": list(samples.classes),
                "changed_since_training": samples.changed,
            },
            "prediction": dict(self.settings),
            "bootstrap": {"unit": "group", "draws": self.draws, "seed": self.seed, "level": 0.95},
            "networks": [_numbers(network) for network in self.networks],
            "differences": [
                {
                    "of": other.label,
                    "minus": first.label,
                    "sizes": {
                        size: _scores(
                            other.measured[size].minus(first.measured[size]), samples.classes
                        )
                        for size in first.measured
                    },
                }
                for other in others
            ],
        }


def _numbers(network: Evaluated) -> dict[str, Any]:
    classes, trained = network.samples.classes, network.trained
    sizes = {}
    for size, tally in network.evaluation.tallies.items():
        found = tally.calibration
        sizes[size] = {
            "size": network.size(size),
            "scores": _scores(network.measured[size], classes),
            "confusion": tally.confusion.tolist(),
            "calibration": {
                "expected_calibration_error": found.error,
                "brier_score": found.brier_score,
                "bins": {
                    "pixels": found.pixels.tolist(),
                    "probability_sum": found.probability.tolist(),
                    "occurred": found.occurred.tolist(),
                },
            },
        }
        if len(classes) == 2:
            sizes[size]["best_threshold"] = best_threshold(found.levels)._asdict()
    return {
        "label": network.label,
        "from": str(network.place),
        "framework": network.framework,
        "model": dataclasses.asdict(trained.model),
        "parameters": parameters(trained),
        "facts": dict(trained.facts),
        "recorded_by_the_run": dict(network.recorded),
        "sizes": sizes,
        "worst": [{"name": w.name, "score": w.score} for w in network.evaluation.worst],
    }


def _scores(measured: Measured, classes: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in measured.values.items():
        estimates = [_json(estimate) for estimate in measured.estimates(name)]
        found[name] = dict(zip(classes, estimates, strict=True)) if value.ndim else estimates[0]
    return found


def _json(estimate: Estimate) -> dict[str, float | None]:
    return {k: None if np.isnan(v) else v for k, v in estimate._asdict().items()}


def foreign(folder: Path) -> list[str]:
    """The files in a report's folder that no report has, in order."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(path for path in paths if not OWN.fullmatch(path))


def shown(estimate: Estimate, signed: bool = False) -> str:
    """A number, with its interval if there is one."""
    value, low, high = (f"{x:+.4f}".replace("-", "−") if signed else f"{x:.4f}" for x in estimate)
    if np.isnan(estimate.value):
        return "–"
    return value if np.isnan(estimate.low) else f"{value} [{low}, {high}]"


def parameters(trained: Trained) -> int:
    """How many the network has."""
    import jax  # Its trees, not its devices.

    return sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))


def _panel(network: Evaluated, worst: Sequence[Worst]) -> Image.Image:
    samples = network.samples
    title = network.label if len(worst) > 1 else f"{worst[0].name}    {worst[0].score:.4f}"
    captions = [f"{n}. {w.name}  {w.score:.4f}" for n, w in enumerate(worst, 1)]
    return prediction_panel(
        np.stack([w.image for w in worst]),
        np.stack([w.truth for w in worst]),
        np.stack([w.predicted for w in worst]),
        samples.palette,
        samples.classes,
        title,
        captions if len(worst) > 1 else (),
    )


def _picture(end: str, n: int, worst: Worst) -> str:
    return f"worst/{n:02}{end}_{_file_name(worst.name)}.jpg"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[:60]
