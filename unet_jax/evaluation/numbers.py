"""What an evaluation has found, as numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.evaluation.calibration import best_threshold
from unet_jax.evaluation.compared import Compared, Evaluated
from unet_jax.evaluation.measured import Estimate, Measured


def numbers(compared: Compared) -> dict[str, Any]:
    """What `results.json` holds: all of a report, as JSON values."""
    samples, config = compared.samples, compared.samples.config
    first, *others = compared.networks
    return {
        "command": compared.command,
        "versions": dict(compared.versions),
        "data": {
            "dataset": config.dataset,
            "data_dir": config.data_dir and str(config.data_dir),
            "split": samples.part,
            "samples": len(samples.names),
            "groups": compared.groups,
            "classes": list(samples.classes),
            "changed_since_training": samples.changed,
        },
        "prediction": dict(compared.settings),
        "bootstrap": {
            "unit": "group",
            "draws": compared.draws,
            "seed": compared.seed,
            "level": 0.95,
        },
        "networks": [_of_network(network) for network in compared.networks],
        "differences": [
            {
                "of": other.label,
                "minus": first.label,
                "sizes": {
                    size: _scores(other.measured[size].minus(first.measured[size]), samples.classes)
                    for size in first.measured
                },
            }
            for other in others
        ],
    }


def _of_network(network: Evaluated) -> dict[str, Any]:
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
        "parameters": trained.parameters,
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
