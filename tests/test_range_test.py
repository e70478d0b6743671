"""The learning rate range test: what it sees, when it ends, and what it suggests."""

import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from unet_jax.range_test import sweep

ROOT = Path(__file__).parents[1]
RATES = np.geomspace(1e-3, 100, 60).tolist()


def descend(state: Any, batch: Any, *, learning_rate: Any) -> tuple[Any, Any]:
    """Gradient descent on x²: below a rate of 1 it converges, above that it explodes."""
    x, n = state
    return (x - learning_rate(n) * 2 * x, n + 1), {"loss": x**2}


def run(start: float, rates: list[float] = RATES) -> Any:
    batches: Any = range(len(rates))
    return sweep(descend, (jnp.asarray(start), jnp.asarray(0)), batches, rates)


def test_every_step_has_its_own_rate():
    seen = run(1.0, RATES[:20])
    x = np.cumprod([1.0] + [1 - 2 * rate for rate in RATES[:19]])
    assert seen.rates == RATES[:20]
    # Twenty products in float32.
    np.testing.assert_allclose(seen.losses, x**2, rtol=1e-5)
    # The running mean is one with weights that fall by a tenth a step, and sum up to one.
    for n in range(20):
        weights = 0.9 ** np.arange(n, -1, -1)
        expected = np.average(seen.losses[: n + 1], weights=weights)
        assert seen.smooth[n] == pytest.approx(expected, rel=1e-9)


def test_it_ends_when_the_loss_has_exploded():
    seen = run(1.0)
    assert 1 < seen.rates[-1] < 100
    assert seen.smooth[-1] > 4 * min(seen.smooth)
    assert all(s <= 4 * min(seen.smooth[: n + 1]) for n, s in enumerate(seen.smooth[:-1]))
    lowest = RATES[int(np.argmin(seen.smooth))]
    assert seen.suggestion == pytest.approx(lowest / 10)
    assert seen.suggestion < 1


def test_far_above_is_four_times_the_lowest_mean():
    losses = jnp.asarray([1.0] * 30 + [6.0] * 30)

    def given(n: Any, batch: Any, *, learning_rate: Any) -> tuple[Any, Any]:
        return n + 1, {"loss": losses[n]}

    batches: Any = range(60)
    # After k sixes, the mean is 1 + 5 (1 - 0.9^k) / (1 - 0.9^(30 + k)): 3.9 for 8, and 4.1 for 9.
    assert len(sweep(given, jnp.asarray(0), batches, RATES).losses) == 39


def test_it_ends_when_the_loss_is_not_finite():
    assert run(float("nan")).losses == []
    # The first square is nearly the largest number of float32.
    assert run(1e19, [10.0, 100.0, 1000.0]).rates == [10.0]


def script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["lr_find.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts" / "lr_find.py"), run_name="__main__")
    return stop.value.code


SMALL = (
    *("--size", "16", "24", "--scenes", "12", "--batch-size", "2"),
    *("--architecture", "plain", "--channels", "4", "--norm", "none"),
)


def test_the_script_draws_and_suggests(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = (*SMALL, "--prepared-dir", str(tmp_path / "prepared"))
    quick = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        # Twelve steps are more than an epoch, which has four.
        assert script(monkeypatch, *arguments, "--steps", "12", "--highest", "0.1") == 0
    finally:
        jax.config.update("jax_disable_most_optimizations", quick)
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first == "12 steps, to a learning rate of 1.0e-01; drawn in lr_find.png"
    name, value = second.removeprefix("Suggested: ").split()
    assert name == "--learning-rate"
    assert 1e-7 <= float(value) <= 1e-2
    with Image.open(tmp_path / "lr_find.png") as picture:
        picture.load()
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--lowest", "0"), "--lowest, --highest: 0.0 must be above 0 and below 1.0"),
        (("--highest", "1e-7"), "--lowest, --highest: 1e-06 must be above 0 and below 1e-07"),
        (("--steps", "1"), "--steps: 1 is less than 2"),
        (("--pos-weight", "2"), "pos_weight: 2.0 needs two classes, and there are 6"),
    ],
)
def test_mistakes_are_named(arguments, error, tmp_path, monkeypatch, capsys):
    place = ("--prepared-dir", str(tmp_path))
    assert script(monkeypatch, *SMALL, *place, *arguments) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("out", ["rates.pdf", "folder.png", "file/rates.png"])
def test_a_plot_that_cannot_be_written_is_refused_first(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr("unet_jax.range_test.open_dataset", None)
    assert script(monkeypatch, *SMALL, "--out", str(tmp_path / out)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / out.partition("/")[0]) in line


def test_ctrl_c_while_the_data_is_prepared_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unet_jax.range_test.open_dataset", interrupt)
    assert script(monkeypatch, *SMALL) == 130
    assert not list(tmp_path.iterdir())
