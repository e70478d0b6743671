"""The architecture as a table: every layer's output shape and parameter count."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from unet_jax.config import Config
from unet_jax.models import build_model


def describe(config: Config, num_classes: int) -> Table:
    """Traces the network of a config, computing nothing.

    Returns:
      A row for each named layer: its class, its output [B, H, W, C] and its parameters.
    """
    model = build_model(config.model, num_classes)
    images = jax.ShapeDtypeStruct((config.train.batch_size, *config.data.size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    layers: dict[str, str] = {}  # In the order in which they run.

    def note(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layers["/".join(context.module.path)] = type(context.module).__name__
        return run(*args, **kwargs)

    def trace(variables: Any, images: Any) -> Any:
        with nn.intercept_methods(note):
            return model.apply(variables, images, capture_intermediates=True)

    _, captured = jax.eval_shape(trace, variables, images)
    params = variables["params"]
    table = Table(title=f"{type(model).__name__}, {_count(params):,} parameters")
    for heading in ("layer", "kind", "output", "parameters"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left")
    for name in layers:
        if name in params:
            [output] = captured["intermediates"][name]["__call__"]
            shape = " × ".join(str(n) for n in output.shape)
            table.add_row(name, layers[name], shape, f"{_count(params[name]):,}")
    return table


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
