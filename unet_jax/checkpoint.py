"""Saving and restoring a run's state: the only file that knows Orbax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
from orbax.checkpoint import v1 as ocp

from unet_jax.step import TrainState

_policies = ocp.training.preservation_policies


class Checkpoints:
    """A folder that keeps two states: the last, and the best by a validation metric."""

    def __init__(self, folder: Path, metric: str) -> None:
        """Args:
        folder: Made if it does not exist.
        metric: Name of the metric whose highest value is best.
        """
        best = _policies.BestN(
            n=1, get_metric_fn=lambda m: m[metric], keep_checkpoints_without_metrics=False
        )
        keep = _policies.AnyPreservationPolicy([_policies.LatestN(1), best])
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.absolute()),
            preservation_policy=cast(Any, keep),
            cleanup_tmp_directories=True,
        )

    def save(
        self, state: TrainState, position: Mapping[str, Any], metrics: Mapping[str, float] | None
    ) -> None:
        """Saves the state, replacing one of the same step.

        Args:
          state: To be saved under its own step.
          position: Where in the data the run is; JSON values.
          metrics: Validation metrics, if the state has been validated.
        """
        self._checkpointer.save(
            int(state.step),
            state,
            overwrite=True,
            metrics=None if metrics is None else dict(metrics),
            custom_metadata=dict(position),
        )

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The last state and its position; None if nothing has been saved.

        Args:
          template: A state of the same structure, shapes and placement.
        """
        latest = self._checkpointer.latest
        if latest is None:
            return None
        abstract = jax.tree.map(_abstract, template)
        state = self._checkpointer.load(latest, abstract_state=abstract)
        position = self._checkpointer.metadata(latest).custom_metadata
        return cast(TrainState, state), cast(dict[str, Any], position)

    def close(self) -> None:
        self._checkpointer.close()


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
