"""A report's folder: report.md, report.html, results.json and pictures; all of them, or none."""

import json
import os
import re
import shutil
from pathlib import Path

from unet_jax.evaluation.compared import Compared
from unet_jax.evaluation.findings import findings
from unet_jax.evaluation.numbers import numbers
from unet_jax.evaluation.paper import to_html, to_markdown
from unet_jax.evaluation.pictures import draw

OWN = re.compile(
    r"report\.(md|html)|results\.json|reliability\.png|worst"
    r"|confusion(_\d+_[^/]*)?\.png|worst(_\d+_[^/]*)?\.jpg|worst/\d\d_[^/]+\.jpg"
)
"""What lies in a report's folder."""


def write_report(compared: Compared, folder: Path) -> None:
    """Writes the report, which is whole or not there.

    Args:
      compared: What it says.
      folder: Made; replaced if it is there.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "worst").mkdir(parents=True)
        draw(compared, part)
        title = f"Evaluation on {compared.samples.config.dataset}, {compared.samples.part}"
        parts = list(findings(compared))
        (part / "report.md").write_text(to_markdown(title, parts), "utf-8")
        (part / "report.html").write_text(to_html(title, parts), "utf-8")
        (part / "results.json").write_text(json.dumps(numbers(compared), indent=1), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def foreign(folder: Path) -> list[str]:
    """The files in a report's folder that no report has, in order."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(path for path in paths if not OWN.fullmatch(path))
