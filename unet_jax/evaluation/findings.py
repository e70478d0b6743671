"""What an evaluation has found, in words, tables and pictures."""

from collections.abc import Iterator

import numpy as np

from unet_jax.evaluation import bootstrap, calibration
from unet_jax.evaluation.calibration import best_threshold
from unet_jax.evaluation.compared import SIZES, Compared, Evaluated
from unet_jax.evaluation.measured import Estimate
from unet_jax.evaluation.paper import Code, Figure, Heading, Part, Table, Text
from unet_jax.evaluation.pictures import ending, worst_picture
from unet_jax.metrics import SCORES

BY_CLASS = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy", "boundary_f": "boundary F"}


def findings(compared: Compared) -> Iterator[Part]:
    """What there is to say of the networks, in order."""
    yield from _about(compared)
    for size, title in SIZES.items():
        if size in compared.networks[0].measured:
            yield Heading(title)
            yield from _scores(compared, size)
            yield from _classes(compared, size)
    yield Heading("Confusion")
    yield Text(f"What the pixels of each true class were taken for, {_where(compared)}.")
    for network in compared.networks:
        yield Figure(f"confusion{ending(compared, network)}.png", f"confusion, {network.label}")
    yield from _calibration(compared)
    yield from _worst(compared)
    yield Heading("How this was made")
    yield Code(compared.command)
    yield Text(", ".join(f"{name} {version}" for name, version in compared.versions.items()))


def _where(compared: Compared) -> str:
    return "at native size" if compared.networks[0].evaluation.native else "at the training's size"


def _about(compared: Compared) -> Iterator[Part]:
    samples = compared.samples
    rows = []
    for network in compared.networks:
        facts = network.trained.facts
        state = [facts["state"]] if "state" in facts else []
        state += [f"step {facts['step']}"] if "step" in facts else []
        rows.append(
            (
                network.label,
                network.framework,
                network.trained.model.architecture,
                f"{network.trained.parameters:,}",
                network.size("training"),
                ", ".join(state) or "–",
                str(network.place),
            )
        )
    headings = ("network", "computed by", "architecture", "parameters", "trained at")
    yield Table((*headings, "state", "from"), rows)
    groups = (
        f"{len(samples.names):,} samples, each its own group"
        if compared.groups == len(samples.names)
        else f"{len(samples.names):,} samples in {compared.groups:,} groups"
    )
    place = f", files in {samples.config.data_dir}" if samples.config.data_dir else ""
    yield Text(f"Data: {samples.config.dataset}, {samples.part}: {groups}{place}.")
    settings = ", ".join(f"{k} {v}" for k, v in compared.settings.items())
    yield Text(f"Prediction: {settings or 'each image as a whole, as validation has it'}.")
    if samples.changed:
        yield Text(
            "The data is not what the run was trained on: all samples of these names are "
            "there, but some of the set's pixels, or other samples, have changed."
        )
    if compared.draws:
        yield Text(
            f"Brackets hold 95 % confidence intervals: percentiles of {compared.draws:,} bootstrap "
            f"resamples (seed {compared.seed}) of groups, not of images or pixels. Pictures of one "
            "group, such as a car's views, resemble each other, so that intervals from "
            "resampled images would be too narrow. Each score is computed from pixels summed "
            "over all samples. The intervals say how far the choice of samples matters, not "
            "how far another training would."
        )
        if compared.groups == len(samples.names):
            yield Text(
                "Here nothing says which samples belong together. If some do, such as frames "
                "of one drive, the intervals are too narrow, too."
            )
        if compared.groups < bootstrap.FEW:
            yield Text(
                f"With {compared.groups} group{'s' * (compared.groups > 1)} the intervals mean "
                "little."
            )
    for network in compared.networks:
        if network.recorded:
            yield Text(f"{network.label}: {_agreement(compared, network)}")


def _agreement(compared: Compared, network: Evaluated) -> str:
    found = network.measured["training"].values
    apart = max(abs(value - float(found[name])) for name, value in network.recorded.items())
    same = (
        "the same"
        if apart < 5e-7
        else f"up to {apart:.1e} apart (a run validates in its own batches and --precision, which "
        "round differently)"
    )
    scores = ", ".join(f"{SCORES[n]} {v:.6f}" for n, v in network.recorded.items())
    return f"the run itself recorded {scores} for this state; found here: {same}."


def _scores(compared: Compared, size: str) -> Iterator[Part]:
    first, *others = compared.networks
    headings = ["score", *(f"{n.label}, {n.size(size)}" for n in compared.networks)]
    headings += [f"{other.label} − {first.label}" for other in others]
    rows = []
    for name, title in SCORES.items():
        cells = [shown(n.measured[size].estimate(name)) for n in compared.networks]
        for other in others:
            apart = other.measured[size].minus(first.measured[size])
            cells.append(shown(apart.estimate(name), signed=True))
        rows.append([_title(compared, name, title), *cells])
    yield Table(headings, rows)


def _title(compared: Compared, name: str, title: str) -> str:
    """Of two classes, some scores are the foreground's; else they are means."""
    if name in ("accuracy", "mean_class_accuracy"):
        return title
    classes = compared.samples.classes
    return f"{title} of {classes[1]}" if len(classes) == 2 else f"mean {title}"


def _classes(compared: Compared, size: str) -> Iterator[Part]:
    for network in compared.networks:
        measured = network.measured[size]
        columns = [measured.estimates(f"{name}_per_class") for name in BY_CLASS]
        rows = [
            (name, *(shown(column[n]) for column in columns))
            for n, name in enumerate(network.samples.classes)
        ]
        first = "class" if len(compared.networks) == 1 else f"{network.label}: class"
        yield Table((first, *BY_CLASS.values()), rows)


def _calibration(compared: Compared) -> Iterator[Part]:
    binary = len(compared.samples.classes) == 2
    what = (
        f"the probability of {compared.samples.classes[1]}"
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
    for network in compared.networks:
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
            f"The best threshold was chosen on this very split ({compared.samples.part}), so that "
            "its Dice is too good here: judge it on another split, with --threshold."
        )
    yield Figure("reliability.png", f"reliability, {_where(compared)}")


def _worst(compared: Compared) -> Iterator[Part]:
    score = "Dice" if len(compared.samples.classes) == 2 else "mean IoU of the classes that occur"
    yield Heading("Worst samples")
    yield Text(f"Those with the lowest {score}, {_where(compared)}; pictures are smaller.")
    for network in compared.networks:
        end = ending(compared, network)
        yield Text(f"{network.label}, all on one sheet: worst{end}.jpg")
        for n, worst in enumerate(network.evaluation.worst, 1):
            yield Figure(worst_picture(end, n, worst), f"{n}. {worst.name}: {worst.score:.4f}")


def shown(estimate: Estimate, signed: bool = False) -> str:
    """A number, with its interval if there is one."""
    value, low, high = (f"{x:+.4f}".replace("-", "−") if signed else f"{x:.4f}" for x in estimate)
    if np.isnan(estimate.value):
        return "–"
    return value if np.isnan(estimate.low) else f"{value} [{low}, {high}]"
