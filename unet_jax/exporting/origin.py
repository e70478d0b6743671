"""Where a network comes from, for its card: data, recipe, results and licence."""

from collections.abc import Mapping
from typing import Any

import yaml

from unet_jax.exporting.licences import LICENCES, UNKNOWN
from unet_jax.exporting.table import table
from unet_jax.metrics import SCORES
from unet_jax.weights import Trained


def data(trained: Trained) -> str:
    facts = trained.facts
    if "dataset" not in facts:
        return UNKNOWN
    split = dict(facts.get("split", {}))
    content = split.pop("content", None)
    parts = ", ".join(f"{part} {count:,} samples" for part, count in split.items())
    digest = f"; digest of the prepared samples: `{content}`" if content else ""
    return f"`{facts['dataset']}`: {parts or 'its split is not known'}{digest}."


def recipe(facts: Mapping[str, Any]) -> str:
    if "config" not in facts:
        return "Not known."
    changed = "\n".join(f"- {line.replace('->', '→')}" for line in facts["differ"])
    text = yaml.safe_dump(facts["config"], sort_keys=False, default_flow_style=None)
    changes = f", but for:\n\n{changed}" if changed else "."
    return f"""\
The preset `{facts["preset"]}`{changes}

<details><summary>All settings; as a YAML file, <code>train_jax.py --preset FILE</code> takes \
them</summary>

```yaml
{text}```

</details>"""


def results(facts: Mapping[str, Any]) -> str:
    results, training = facts.get("results"), facts.get("training", {})
    averaged = facts.get("config", {}).get("train", {}).get("ema_decay", 0) > 0
    if averaged and not facts.get("ema"):
        return "Not known: the average of the weights was validated, not these weights themselves."
    if not results:
        return "Not known: this state was not validated, or the file does not say."
    state = f"{facts.get('state', '')}, after epoch {results['epoch']}, step {results['step']:,}"
    lines = [
        f"On the validation samples, of the state exported here ({state.strip(', ')}"
        + (", average of the weights" if facts.get("ema") else "")
        + "):"
    ]
    scores = [
        (label, _score(results.get(name)))
        for name, label in (SCORES | {"val_loss": "loss"}).items()
    ]
    lines.append(table(("score", "value"), scores))
    dice, iou = results.get("dice_per_class", {}), results.get("iou_per_class", {})
    per_class = [(name, _score(dice[name]), _score(iou.get(name))) for name in dice]
    if per_class:
        lines.append(table(("class", "Dice", "IoU"), per_class))
    if "wall_seconds" in training:
        lines.append(
            f"Trained in {training['wall_seconds']:,.0f} s, {training['epochs']} epochs, on "
            f"{training.get('device', 'an unknown device')}."
        )
    lines.append(
        "The best state was chosen by these samples, so on others expect a little less."
        if str(facts.get("state", "")).startswith("best")
        else "The last state, not chosen by these samples."
    )
    return "\n\n".join(lines)


def licence(facts: Mapping[str, Any]) -> str:
    return (
        "The licence of these weights is for their author to choose, and to state in the header "
        "of this page (`license: other` until then). unet-jax itself is under Apache-2.0. The "
        f"data:\n\n{LICENCES.get(facts.get('dataset', ''), UNKNOWN)}"
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
