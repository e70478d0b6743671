"""`--dry-run`: the architecture as a table."""

from pathlib import Path

import pytest
from rich.console import Console

from unet_jax.config import Config, DataConfig, ModelConfig
from unet_jax.describe import describe


@pytest.mark.parametrize(
    ("model", "total"),
    [(ModelConfig(), 44_897_473), (ModelConfig(architecture="plain", norm="batch"), 31_037_633)],
    ids=["residual", "plain"],
)
def test_rows_add_up_to_the_published_count(model: ModelConfig, total: int, tmp_path: Path) -> None:
    table = describe(Config(model=model, data=DataConfig(size=(32, 48))), num_classes=1)
    with (tmp_path / "table").open("w") as file:
        console = Console(width=100, record=True, file=file)
        console.print(table)
    text = console.export_text()
    assert f"{total:,} parameters" in text
    counts = [line.split("│")[-2] for line in text.splitlines() if line.startswith("│")]
    assert sum(int(count.replace(",", "")) for count in counts) == total
    [last] = [line for line in text.splitlines() if "conv_out" in line]
    assert "8 × 32 × 48 × 1" in last
