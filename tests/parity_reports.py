"""Made-up parity reports."""

import math
from typing import Any

EVIL = "<img src=x onerror=alert(1)> & | `a` *b* 100%"
PRECISIONS = {"float64": (1e-15, 1e-12), "float32": (2e-7, 1e-6)}


def make_row(case: str, precision: str, stage: str, name: str, **changed: Any) -> dict[str, Any]:
    error, limit = (0.0, 0.0) if stage == "parameters" else PRECISIONS[precision]
    row: dict[str, Any] = {"case": case, "precision": precision, "stage": stage, "name": name}
    row |= {"error": error, "limit": limit, **changed}
    return row | {"passed": row["error"] <= row["limit"]}


def make_rows(cases: int = 2, layers: int = 4) -> list[dict[str, Any]]:
    names = [f"encoder_{n}/conv_{n % 2 + 1}" for n in range(layers)]
    rows = []
    for case in (f"case {n}" for n in range(cases)):
        for precision in PRECISIONS:
            for stage in ("parameters", "eval", "train", "statistics", "gradients"):
                rows += [make_row(case, precision, stage, f"{name}") for name in names]
            rows.append(make_row(case, precision, "loss", "mean loss"))
    return rows


def make_report(rows: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A report with the parts that none lacks, and `more`."""
    rows = make_rows() if rows is None else rows
    failed = [row for row in rows if not row["passed"]]
    return {
        "passed": not failed,
        "first_divergence": failed[0] if failed else None,
        "versions": {"python": "3.11.9", "jax": "0.10.2"},
        "device": {"jax": "TFRT_CPU_0", "torch": "cpu"},
        "rows": rows,
        **more,
    }


def full_report() -> dict[str, Any]:
    """A report with every part."""
    curve = [1.5 * math.exp(-n / 8) + 0.3 for n in range(20)]
    other = [loss * (1 + 1e-15 * n) for n, loss in enumerate(curve)]
    band = {"low": [0.97 * x for x in curve], "high": [1.03 * x for x in curve]}
    components = [
        make_row("components", precision, stage, "value")
        for stage in ("loss: dice", "optimiser: adamw", "schedule: cosine")
        for precision in PRECISIONS
    ]
    faults = [
        ("flipped kernel", "layers", True, "decoder_0/up", "decoder_0/up"),
        ("biased variance", "batch norm", True, "encoder_0/norm", "encoder_0/norm"),
        ("no fault at all", "loss", False, None, "mean loss"),
    ]
    return make_report(
        make_rows() + components,
        level="full",
        seconds=184.2,
        command="python -m parity --level full",
        loss_gaps={"float64": 2e-15},
        losses={"float64": {"jax": other, "torch": curve, "band": band}},
        mutations=[
            dict(zip(("name", "component", "killed", "named", "expected"), fault, strict=True))
            for fault in faults
        ],
        pictures=["prediction_jax.png", "prediction_torch.png", "prediction_difference.png"],
        third_opinion="A network of another library agrees to 1e-6.",
    )
