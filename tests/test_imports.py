"""Imports point one way, and the command line waits for no framework."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
print(*sys.modules)
"""
IMPORT_ONE = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sys.modules)
"""


def loaded(code: str, name: str) -> set[str]:
    """Modules that a fresh interpreter holds after running `code` on `name`."""
    command = [sys.executable, "-c", code, name]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


@pytest.mark.parametrize(
    ("package", "some", "foreign"),
    [
        pytest.param(
            "unet_jax",
            {"unet_jax.models.residual", "unet_jax.datasets.scene", "unet_jax.learner", "jax"},
            {"torch", "unet_torch_ref", "parity"},
            id="unet_jax",
        ),
        pytest.param(
            "unet_torch_ref",
            {"unet_torch_ref.models.residual", "unet_torch_ref.learner", "torch"},
            {"jax", "jaxlib", "flax", "optax", "unet_jax", "parity"},
            id="unet_torch_ref",
        ),
    ],
)
def test_no_module_of_a_package_loads_the_other_framework(package, some, foreign):
    modules = loaded(IMPORT_ALL, package)
    assert sorted(some - modules) == [], "the walk missed modules"
    assert sorted(modules & foreign) == []


@pytest.mark.parametrize(
    "module",
    [
        "unet_jax.train_options",
        "unet_jax.prepare_options",
        "unet_jax.range_test_options",
        "unet_jax.config",
        "unet_jax.prediction.predict_options",
        "unet_jax.exporting.export_options",
        "unet_jax.evaluation.evaluate_options",
    ],
)
def test_help_waits_for_no_framework(module):
    modules = loaded(IMPORT_ONE, module)
    assert module in modules
    slow = {"jax", "jaxlib", "flax", "optax", "torch", "tensorflow", "tensorflow_datasets", "grain"}
    assert sorted(modules & slow) == []
