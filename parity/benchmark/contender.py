"""Who takes part: each framework in each of its dresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""What convolutions compute in. tf32: float32, of which a GPU's fast units take 10 bits."""
How = Literal[
    "jit",
    "jit, XLA alone",
    "pmap",
    "eager",
    "compile",
    "compile frozen",
    "compile max-autotune",
]
"""What runs a framework's Python code. Frozen: weights are constants for PyTorch's compiler, which
may fold norms into convolutions, as JAX does here."""

NEEDS_GPU = "needs a GPU"
LOADED, HELD = ", from prepared records", ", from memory"
"""What is added to the name of a contender that waits for its data, too: from disk in every epoch,
or held by the device or the host, as JAX' training has it where there is room."""


def missing(precision: Precision, gpu: bool) -> str | None:
    """Why nothing can be measured in this precision here; None if it can."""
    return NEEDS_GPU if precision == "tf32" and not gpu else None


def check_precisions(precisions: Sequence[Precision], gpu: bool) -> None:
    """Whether anything can be measured in one of them here.

    Raises:
      ValueError: Nothing can; the message says why not.
    """
    reasons = {precision: missing(precision, gpu) for precision in precisions}
    if all(reasons.values()):
        told = "; ".join(f"{precision} {reason}" for precision, reason in reasons.items())
        raise ValueError(f"precisions: {told}")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A framework in one dress.

    Attributes:
      framework: Which one.
      how: What runs its Python code.
      precision: What convolutions compute in.
      channels_last: Whether images lie in memory pixel by pixel (PyTorch; in JAX they always do).
      checkout: Another checkout of this project, whose code it runs (JAX); None: this one.
    """

    framework: Literal["jax", "torch"]
    how: How
    precision: Precision
    channels_last: bool = True
    checkout: Path | None = None

    @property
    def name(self) -> str:
        if self.framework == "jax":
            of = f"{self.checkout.name}: " if self.checkout else ""
            return f"{of}JAX {self.how}, {self.precision}"
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"PyTorch {self.how}, {layout}, {self.precision}"

    def missing(self, gpu: bool) -> str | None:
        """Why it cannot be measured here; None if it can."""
        return missing(self.precision, gpu)


REFERENCE = Contender(framework="torch", how="eager", precision="float32", channels_last=False)
"""What all others have to agree with."""


def contenders(
    precisions: Sequence[Precision],
    devices: int,
    *,
    onednn: bool = False,
    frozen: bool = False,
    checkouts: Sequence[Path] = (),
) -> list[Contender]:
    """All of these precisions, JAX first.

    Args:
      precisions: In this order.
      devices: How many there are; with one, pmap is what jit is.
      onednn: Whether JAX calls it for convolutions of float32; then XLA's own take part, too.
      frozen: Whether weights stay as they are.
      checkouts: Other checkouts of this project, whose JAX takes part beside this one's.
    """
    ways: tuple[How, ...] = ("jit", "pmap") if devices > 1 else ("jit",)
    jax = []
    for precision in precisions:
        own = (*ways, "jit, XLA alone") if onednn and precision == "float32" else ways
        jax += [
            Contender(framework="jax", how=how, precision=precision, checkout=checkout)
            for checkout in (None, *checkouts)
            for how in own
        ]
    constant: tuple[How, ...] = ("compile frozen",) if frozen else ()
    modes: tuple[How, ...] = ("eager", "compile", *constant, "compile max-autotune")
    return jax + [
        Contender(framework="torch", how=how, precision=precision, channels_last=layout)
        for precision in precisions
        for how in modes
        for layout in (True, False)
    ]


class Named(Protocol):
    """Whatever can be chosen by a part of its name."""

    @property
    def name(self) -> str: ...


Choice = TypeVar("Choice", bound=Named)


def chosen(found: Sequence[Choice], parts: Sequence[str], option: str) -> list[Choice]:
    """Those whose names hold one of these parts; without any, all.

    Raises:
      ValueError: A part is in no name; the message begins with the option that gave it.
    """
    for part in parts:
        if not any(part.lower() in each.name.lower() for each in found):
            names = "; ".join(each.name for each in found)
            raise ValueError(f"{option}: {part!r} is in none of the names: {names}")
    return [
        each
        for each in found
        if not parts or any(part.lower() in each.name.lower() for part in parts)
    ]
