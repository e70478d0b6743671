"""docs/benchmarks.md: every table from a JSON file beside it, and nothing by hand."""

from collections.abc import Sequence
from pathlib import Path

from parity.benchmark.contender import LOADED
from parity.benchmark.duel import Duel, duels
from parity.benchmark.result import Results, load
from parity.benchmark.suite import CPU, GPU, Case
from parity.benchmark.table import (
    HEADINGS,
    LAYER_HEADINGS,
    cases,
    layer_cells,
    lines,
    number,
    remarks,
)

HEAD = """# Benchmarks

Written by `python scripts/benchmark.py docs` from the JSON files in `benchmarks/`, which hold
every sample; no figure here is entered by hand, or estimated.

Every contender runs in a process of its own, from the same weights on the same batch, which lies on
the device; they take turns (A B A B …), so that a slow minute slows all. A sample is as many whole
steps as last 0.5 s, one begun while another runs as in training (of a layer, 50 ms; end to end, an
epoch), and ends when the device is done. With `--starts N` the samples come from N processes of
each contender, since one of them may by chance be slower than another throughout. Before such a
process is timed, the losses of its first three steps (of inference, the logits) have to agree with
those of PyTorch in float32, or nothing is shown. The learning rate is constant.

PyTorch's step waits for the device nowhere (but in rows *measured as before*), has a fused
optimiser, and, compiled, augmentation, network and loss in one function; float16 has a scaled loss.
*Frozen*: its compiler takes the weights for constants (prediction alone), so that it can fold a
batch norm into the convolution before it, as is done here in JAX. On a CPU, glibc is told to keep
freed memory, and OpenMP's threads to wait a little longer before they sleep, for both frameworks;
and JAX has its convolutions of float32 computed by oneDNN where that is installed, as PyTorch has,
and then, on two cores, one thread for all else where layers are small; *XLA alone* is JAX without
it. Wide 3×3 convolutions on a CPU (beside oneDNN large ones only) are XLA's, with a quarter of the
products (Winograd's algorithm). Rows of the *AMD EPYC*, which has AVX2, and of the *Intel Xeon*,
which has AVX-512, are older: with all products, and one thread for layers of every size
(2026-11-26) or up to a million values (2026-11-27).

End to end, *from prepared records* reads them anew in every epoch, PyTorch by its own loader, in
processes beside it; *from memory* is JAX' training as it is run where there is room for the set:
held by a GPU, or by the host.

- *first step, more*: what the first step takes longer than later ones, compilation most of all;
  with `--together`, beside others that compile and try out which code is fastest.
- *memory*: the most that was held at once, of a GPU as its framework counts it (of JAX what is
  held between steps, and by XLA's account what a step takes beside it), of a CPU what the process
  has more than before the network was built. What compilation took and freed is in rows that
  were *measured as before*, and end to end in JAX' count on a GPU.
- *TFLOP/s*: of convolutions, a multiply-add being 2; training counts three forward passes.
  Counted by definition, whichever algorithm computes them: Winograd's can take less than the
  roofline's time.
- *of roofline*: for each convolution the longer of arithmetic at the device's peak and memory
  traffic at its bandwidth, summed, over the measured time. Norms, activations and the optimiser
  are taken to cost nothing. A shared CPU's measured peaks vary from hour to hour, by a quarter,
  once by half, so its share is a rough one.
- *off reference*: the largest relative difference of what was compared.

A case of one's own: `python scripts/benchmark.py train --preset PRESET --batch-sizes 1 4 8`;
`infer`, `ops` (layer by layer), `train --end-to-end` and `scaling` (1, 2, 4 and 8 devices, those of
a CPU being virtual: their losses have to agree with one's, their speed says nothing) likewise.
`compare OLD NEW` shows what got slower, and `suite --cases NAME` measures some files anew.
"""
OVERVIEW = (
    "what",
    "size, batch",
    "precision",
    "JAX, images/s",
    "PyTorch's fastest row, images/s",
    "JAX is",
    "with memory",
    "of roofline",
)
EARLIER = (
    "measured as before: memory with what compilation took and freed; in training, PyTorch's "
    "pixels' places in float64, and waits for small copies"
)
FILLED_BY = "python scripts/benchmark.py suite"


def page(folder: Path) -> str:
    """The page's text.

    Args:
      folder: Of the JSON files, in the order of whose names they are shown.

    Raises:
      ValueError: One of them is damaged.
      OSError: The folder cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found = {path: load(path) for path in sorted(folder.glob("*.json"))}
    devices: dict[str, list[tuple[Path, Results]]] = {}
    for path, results in found.items():
        devices.setdefault(results.device, []).append((path, results))
    parts = [HEAD]
    for device, files in devices.items():
        parts += [f"## {device}\n", _overview(files)]
        parts += [_section(path, results) for path, results in files]
    names = {path.stem.partition("--")[2] for path in found}
    for kind, suite in (("GPU", GPU), ("CPU", CPU)):
        missing = [case for case in suite if case.name not in names]
        if missing:
            parts.append(_unmeasured(kind, missing))
    return "\n".join(parts)


def _overview(files: Sequence[tuple[Path, Results]]) -> str:
    """Of each network, JAX against PyTorch's fastest."""
    lines = []
    for results in (each for _, each in files if each.subject != "ops"):
        for case, rows in cases(results.rows).items():
            for duel in duels(rows, loaded=results.subject == "end-to-end"):
                lines.append(_overview_cells(results, case, duel))
    return _table(OVERVIEW, lines)


def _overview_cells(results: Results, case: str, duel: Duel) -> tuple[str, ...]:
    ours, theirs = duel
    dress = theirs.contender.removeprefix("PyTorch ").removesuffix(LOADED)
    return (
        f"{results.subject}, {results.title}",
        case,
        ours.precision,
        number(ours.rate),
        f"{number(theirs.rate)} ({dress.removesuffix(f', {theirs.precision}')})",
        f"{duel.speed:.2f}×",
        "–" if duel.memory is None else f"{duel.memory:.2f}×",
        "–" if ours.roofline is None else f"{ours.roofline:.0%}",
    )


def _section(path: Path, results: Results) -> str:
    facts = results.facts
    shown = [f"### {results.subject}: {results.title}\n", f"`{facts['command']}`\n"]
    machine = [facts["date"], results.versions, facts["cpu"], f"load {facts['load']} at the start"]
    seen = ", ".join(sorted({row.clock for row in results.rows if row.clock}))
    for gpu in facts.get("gpus", []):
        clock = f"{seen} after samples" if seen else f"{gpu['clocks.sm']} before the run"
        machine.append(
            f"driver {gpu['driver_version']}, clock {clock}, at most {gpu['clocks.max.sm']}"
        )
    peaks = facts["peaks"]
    reached = ", ".join(f"{value / 1e12:.3g} in {name}" for name, value in peaks["flops"].items())
    machine.append(
        f"peaks {peaks['source']}: TFLOP/s {reached}; {peaks['bandwidth'] / 1e9:,.0f} GB/s"
    )
    if results.subject != "ops":
        machine.append(f"memory {facts['memory']}" if "memory" in facts else EARLIER)
    shown.append(f"{'; '.join(machine)}. Raw: [{path.name}](benchmarks/{path.name}).\n")
    if results.subject == "ops":
        return "\n".join([*shown, _table(LAYER_HEADINGS, layer_cells(results.rows))])
    for case, rows in cases(results.rows).items():
        shown += [f"**{case}**\n", _table(HEADINGS, lines(rows))]
        shown += [f"{text}.\n" for text in remarks(results, rows)]
    return "\n".join(shown)


def _unmeasured(kind: str, suite: Sequence[Case]) -> str:
    lines = [
        f"## {kind}: not measured yet\n",
        f"On a machine with one, `{FILLED_BY}` fills these in:\n",
    ]
    rows = [(case.title, case.subject, "not measured") for case in suite]
    return "\n".join([*lines, _table(("network", "subject", ""), rows)])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
