"""A network as one StableHLO file, which JAX alone runs: on CPU, CUDA and TPU, in any batch."""

from pathlib import Path

import jax
import numpy as np
from jax import export

from unet_jax.exporting.artefact import Format, Run, Size, build_function
from unet_jax.models.convolution import xla_alone
from unet_jax.weights import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def _write(trained: Trained, size: Size, path: Path) -> None:
    shape = export.symbolic_shape(f"batch, {size[0]}, {size[1]}, 3")
    function = build_function(trained)
    assert isinstance(function, jax.stages.Wrapped)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    with xla_alone():
        exported = export.export(function, platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def _load(path: Path) -> Run:
    network = export.deserialize(bytearray(path.read_bytes()))
    return lambda images: np.asarray(network.call(images))


STABLEHLO = Format(
    suffix=".stablehlo",
    layout="NHWC",
    write=_write,
    load=_load,
    times=2.0,
    reason="the same compiler, which may fold the weights into other constants",
    usage="""\
from pathlib import Path

from jax import export
{images}
network = export.deserialize(bytearray(Path("{file}").read_bytes()))
probabilities = network.call(images)  # [1, H, W, classes]
mask = probabilities[0].argmax(-1)
""",
    packages=("jaxlib",),
)
