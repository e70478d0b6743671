"""From a command line to verified files and their card: all of them, or none."""

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import NoReturn, get_args

from unet_jax.cli import INTERRUPTED, mistakes
from unet_jax.draft import draft
from unet_jax.exporting.artefact import Format, Size
from unet_jax.exporting.export_options import ExportOptions, FormatName
from unet_jax.exporting.model_card import CARD, Exported, model_card
from unet_jax.exporting.provenance import with_provenance
from unet_jax.exporting.verification import Different, Reference, compare, refer
from unet_jax.trained import load_trained
from unet_jax.versions import versions
from unet_jax.weights import Trained

PACKAGES = ("unet-jax", "jax", "flax", "numpy")


class ExportError(Exception):
    """A file could not be made, or is not what it should be; the message says which and why."""


def export(options: ExportOptions, formats: Mapping[str, Format]) -> int:
    """Exports a trained network.

    Args:
      options: The command line's.
      formats: By name, those that are asked for.

    Returns:
      The exit status: 0; 1 if a file could not be made or differs from its network; 130 when
      Ctrl-C ended it. Only after 0 there are new files.
    """
    assert options.out is not None
    try:
        with nullcontext() if options.debug else mistakes():
            trained = find_trained(options)
            size = options.size or trained.size
            _check_size(trained, size)
            out = options.out.expanduser()
            names = {name: f"model{format.suffix}" for name, format in formats.items()}
            _refuse_to_overwrite(out, [*names.values(), CARD], options.force)
            stale = _of_another_export(out, names.values())
            with _folder(out), ExitStack() as drafts:
                reference = _refer(trained, size, options)
                files = []
                for name, format in formats.items():
                    part = drafts.enter_context(draft(out / names[name]))
                    file = _write(trained, size, names[name], part, format, reference, options)
                    print(_line(file), flush=True)
                    files.append(file)
                card = drafts.enter_context(draft(out / CARD))
                card.write_text(_card(trained, files, size, options), "utf-8")
            for path in stale:
                path.unlink()
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing has been written.")
        return INTERRUPTED
    print(f"{out}: {', '.join([*names.values(), CARD])}")
    return 0


def find_trained(options: ExportOptions) -> Trained:
    """The network that is exported, with all that is known of where it comes from.

    Raises:
      ValueError: There is none, or it is damaged; the message names the file.
    """
    place = options.run or options.weights
    assert place is not None
    if options.run is not None and place.expanduser().is_file():
        raise ValueError(f"--run: {place} is a file; --weights takes one")
    if options.weights is not None and place.expanduser().is_dir():
        raise ValueError(f"--weights: {place} is a folder; --run takes one")
    trained = load_trained(place, last=options.last, ema=options.ema)
    return trained if options.run is None else with_provenance(trained, place.expanduser())


def _check_size(trained: Trained, size: Size) -> None:
    least = trained.model.unit
    if min(size) < least:
        raise ValueError(f"--size: {size[0]}×{size[1]} is too small; at least {least}×{least}")


def _refuse_to_overwrite(out: Path, names: Sequence[str], force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; a folder is needed")
    for path in (out / name for name in names):
        if path.is_dir():
            raise ValueError(f"--out: {path} is a folder; a file would be written there")
        if path.exists() and not force:
            raise ValueError(f"--out: {path} would be written over; --force does that")


def _of_another_export(out: Path, names: Collection[str]) -> list[Path]:
    """The files of an earlier export, of formats that are not exported now: they would lie beside
    the card of another network.

    Raises:
      ValueError: There are such files, but no card that says that we have written them.
    """
    others = [out / f"model.{name}" for name in get_args(FormatName)]
    others = [path for path in others if path.name not in names and path.exists()]
    card = out / CARD
    listed = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    for path in others:
        if not any(line.endswith(f"  {path.name}") for line in listed):
            raise ValueError(
                f"--out: {path} would lie beside the card of another network; choose another folder"
            )
    return others


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Makes the folder; if what follows fails, it is taken away again if it is new."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _refer(trained: Trained, size: Size, options: ExportOptions) -> Reference:
    try:
        return refer(trained, size)
    except Exception as error:
        _explain(str(options.run or options.weights), error, options)


def _write(
    trained: Trained,
    size: Size,
    name: str,
    part: Path,
    format: Format,
    reference: Reference,
    options: ExportOptions,
) -> Exported:
    """Writes a file, reads it back and compares."""
    try:
        format.write(trained, size, part)
        run = format.load(part)
        return Exported(name, part, format, compare(run, reference, format.times))
    except Different as error:
        raise ExportError(f"{name} {error}; nothing has been written") from None
    except Exception as error:  # Of exporters that are not ours: they fail in many ways.
        _explain(name, error, options)


def _card(trained: Trained, files: Sequence[Exported], size: Size, options: ExportOptions) -> str:
    packages = dict.fromkeys(PACKAGES)
    for file in files:
        packages |= dict.fromkeys(file.format.packages)
    try:
        return model_card(trained, files, size, versions(packages))
    except Exception as error:  # What a file of weights says of itself can be anything.
        _explain(CARD, error, options)


def _explain(name: str, error: Exception, options: ExportOptions) -> NoReturn:
    if options.debug:
        raise error
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    raise ExportError(
        f"{name}: {type(error).__name__}: {reason[:300]}; --debug shows where"
    ) from None


def _line(file: Exported) -> str:
    difference = file.difference
    return (
        f"{file.name}: {file.path.stat().st_size / 1e6:,.1f} MB; relative error "
        f"{difference.error:.1e}, {difference.times:.2f} times Flax's own "
        f"(at most {file.format.times:g})"
    )
