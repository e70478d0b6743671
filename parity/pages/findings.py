"""What a parity report says, in numbers and words that its page and its Markdown file share.

A report is what report.json holds. All but `rows` and `passed` may be missing from it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Report = Mapping[str, Any]
Entry = Mapping[str, Any]
"""One of a report's rows: a tensor, compared."""

STAGES = {
    "parameters": "weights",
    "eval": "outputs, eval",
    "train": "outputs, train",
    "statistics": "statistics",
    "loss": "loss",
    "gradients": "gradients",
}
"""Of a network's comparison, in order. Any other stage is a component by itself."""

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The distance from 1 to the next number (machine epsilon)."""

POOLED = "all"
"""Name of a row that takes a stage's tensors together."""

WHAT_TO_DO = {
    "parameters": "The weights themselves differ, so nothing after them can agree. Look at how "
    "they are carried across: parity/convert.py.",
    "eval": "Its weights agree, and so does what earlier layers put out. Look at what this layer "
    "computes in unet_jax/models and in unet_torch_ref/models.",
    "train": "In evaluation it agrees. Look at what differs in training: the statistics that a "
    "norm takes from the batch.",
    "statistics": "The layers' outputs agree. Look at how a norm updates its running statistics: "
    "momentum, and the variance's n or n − 1.",
    "loss": "The network's outputs agree. Look at the loss: how ignored pixels and padding are "
    "left out, and what it is divided by.",
    "gradients": "All that runs forward agrees. Look at this layer's derivative.",
}
COMPONENT = "Look at this component in unet_jax and unet_torch_ref: file names are the same."


def number(value: Any) -> float:
    """An error as report.json may hold it; one that is missing or no number is infinite."""
    result = math.inf if value is None else float(value)
    return math.inf if math.isnan(result) else result


class Measure(NamedTuple):
    """What a row is judged by.

    Attributes:
      kind: What is measured.
      value: The measure; at most `limit` if the row passes.
      limit: The largest that does.
    """

    kind: str
    value: float
    limit: float

    @property
    def share(self) -> float:
        """The value as a part of its limit."""
        if not self.limit:
            return math.inf if self.value else 0.0
        return self.value / self.limit if math.isfinite(self.value) else math.inf


def measure(row: Entry) -> Measure:
    """Of a row's error and its ULPs, what is nearer to its limit or farther beyond it."""
    found = [Measure("relative error", number(row["error"]), number(row["limit"]))]
    if row.get("ulps_limit") is not None:
        found.append(Measure("ULPs", number(row["ulps"]), number(row["ulps_limit"])))
    return max(found, key=lambda each: each.share)


def share(row: Entry) -> float:
    """How much of its limit a row uses up: at most 1 if it passes."""
    return measure(row).share


def worst(rows: Iterable[Entry]) -> Entry | None:
    """The row that fails, or else comes nearest to it."""
    return max(rows, key=lambda row: (not row["passed"], share(row)), default=None)


def distinct(rows: Iterable[Entry], field: str) -> list[str]:
    """A field's values in the order in which they come first."""
    return list(dict.fromkeys(row[field] for row in rows))


def networks(report: Report) -> list[Entry]:
    return [row for row in report["rows"] if row["stage"] in STAGES]


def components(report: Report) -> list[Entry]:
    return [row for row in report["rows"] if row["stage"] not in STAGES]


def grouped(rows: Iterable[Entry], *fields: str) -> dict[tuple[str, ...], list[Entry]]:
    """Rows that are alike in these fields."""
    found: dict[tuple[str, ...], list[Entry]] = {}
    for row in rows:
        found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def size(value: float) -> str:
    """An error, short."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def percent(value: float) -> str:
    """A share, short."""
    if not 0 < value < 10:
        return "0 %" if value == 0 else "≫ 100 %"
    return f"{100 * value:.0f} %" if value >= 0.01 else f"{100 * value:.1g} %"


def digits(error: float) -> int:
    """How many decimal digits agree."""
    return 16 if error == 0 else max(0, math.floor(-math.log10(error)))


def count(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def headline(report: Report) -> str:
    if report["passed"]:
        return "The same model in JAX and in PyTorch"
    return "The JAX and the PyTorch program differ"


def lead(report: Report) -> str:
    """Two or three sentences for somebody who has never seen the project."""
    rows, cases = report["rows"], len(distinct(networks(report), "case"))
    kinds = len(distinct(components(report), "stage"))
    where = [count(cases, "configuration") + " of the network"] * bool(cases)
    where += [count(kinds, "other component")] * bool(kinds)
    text = (
        "A U-Net, a network that finds objects in pictures, is written here twice: in JAX with "
        "Flax, and in PyTorch. Both were given the same weights and the same pictures, and what "
        f"they compute was compared number by number: {count(len(rows), 'tensor')}"
        + (f" from {' and '.join(where)}. " if where else ". ")
    )
    failed = sum(not row["passed"] for row in rows)
    if failed:
        return f"{text}{failed:,} of them are further apart than their limit allows."
    if not report["passed"]:
        return f"{text}Each is within its limit, but another check failed; see below."
    strict = strictest(report)
    nearest = worst(row for row in rows if row["precision"] == strict and number(row["limit"]))
    if nearest is None:
        return f"{text}Each agrees."
    error = number(nearest["error"])
    return (
        f"{text}Each agrees. The worst, in {strict}, has a relative error of {size(error)} "
        f"where {size(number(nearest['limit']))} is allowed: the two agree to "
        f"{count(digits(error), 'digit')}."
    )


def strictest(report: Report) -> str:
    """The most precise arithmetic that was compared."""
    found = distinct(report["rows"], "precision")
    return min(found, key=lambda name: EPSILON.get(name, math.inf), default="float64")


def numbers(report: Report) -> list[tuple[str, str]]:
    """The report's main numbers, each with what it is."""
    rows = report["rows"]
    found = [(f"{len(rows):,}", "comparisons")]
    failed = sum(not row["passed"] for row in rows)
    found += [(f"{failed:,}", "of them beyond their limit")] * bool(failed)
    # Not of components: some have errors of other kinds, such as a weight by its bound.
    tensors = networks(report)
    for name in distinct(tensors, "precision"):
        nearest = worst(row for row in tensors if row["precision"] == name and number(row["limit"]))
        if nearest is not None:
            allowed = f"worst of the networks in {name}; limit {size(number(nearest['limit']))}"
            found.append((size(number(nearest["error"])), allowed))
    for name, gap in report.get("loss_gaps", {}).items():
        found.append((size(number(gap)), f"between the losses of both, training in {name}"))
    faults = report.get("mutations", [])
    if faults:
        caught = sum(bool(fault["killed"]) for fault in faults)
        found.append((f"{caught} of {len(faults)}", "planted faults noticed"))
    return found


def advice(report: Report) -> str:
    """What to do about the first divergence."""
    first = report["first_divergence"]
    text = WHAT_TO_DO.get(first["stage"], COMPONENT)
    before = layer_before(report)
    return text if before is None else f"{text} The last to agree before it is {before}."


def layer_before(report: Report) -> str | None:
    """The last tensor of the same stage that was compared before the first that differs."""
    first, fields = report["first_divergence"], ("case", "precision", "stage")
    alike = [row for row in report["rows"] if all(row[f] == first[f] for f in fields)]
    names = [row["name"] for row in alike]
    place = names.index(first["name"]) if first["name"] in names else 0
    return names[place - 1] if place else None


def other_failures(report: Report) -> list[str]:
    """What else than a tensor may have failed, in sentences."""
    found = []
    if not report["passed"] and all(row["passed"] for row in report["rows"]):
        gaps = report.get("loss_gaps", {})
        found += [
            f"While training in {name} the losses part by up to {size(number(gap))}."
            for name, gap in gaps.items()
        ]
    missed = [fault["name"] for fault in report.get("mutations", []) if not fault["killed"]]
    if missed:
        found.append(f"Faults that were planted and not noticed: {', '.join(missed)}.")
    return found
