"""What got slower from one benchmark to a later one."""

from typing import NamedTuple

import yaml
from rich.table import Table
from rich.text import Text

from parity.benchmark.result import Results, Row
from parity.benchmark.table import milli


class Change(NamedTuple):
    """A contender in both.

    Attributes:
      name: Its own, and what it ran.
      before, now: Its rows; None where there is none.
      slower: Whether it got slower by more than the spread of either, or is measured no more.
    """

    name: str
    before: Row | None
    now: Row | None
    slower: bool


def changes(old: Results, new: Results) -> list[Change]:
    """All rows of either, those of the old one first.

    Raises:
      ValueError: They measured something else, or another network.
    """
    for name in ("subject", "title"):
        one, other = getattr(old, name), getattr(new, name)
        if one != other:
            raise ValueError(
                f"compare: the {name} of the old file is {one}, of the new one {other}"
            )
    before, now = ({(row.case, row.contender): row for row in each.rows} for each in (old, new))
    return [
        Change(
            f"{key[1]}: {key[0]}",
            before.get(key),
            now.get(key),
            _slower(before.get(key), now.get(key)),
        )
        for key in before | now
    ]


def _slower(before: Row | None, now: Row | None) -> bool:
    if before is None or now is None or before.failure is not None:
        return False
    if now.failure is not None:
        return True
    spreads = (high - low for low, high in (before.quartiles, now.quartiles))
    return now.median - before.median > max(spreads)


def table(found: list[Change], old: Results, new: Results) -> Table:
    """Medians of both, and what became of them."""
    caption = "Slower: by more than the distance between the quartiles, of either."
    if old.device != new.device:
        caption += f"\nTwo devices: {old.device}, and {new.device}."
    if other := other_settings(old, new):
        caption += f"\nOther settings: {', '.join(other)}."
    made = Table(
        title=f"{old.facts['date']} to {new.facts['date']}", caption=Text(caption, "table.caption")
    )
    made.add_column("contender")
    for heading in ("before, ms", "now, ms", "time"):
        made.add_column(heading, justify="right")
    made.add_column("")
    for change in found:
        before, now = change.before, change.now
        ratio = ""
        if before and now and before.failure is None and now.failure is None:
            ratio = f"{now.median / before.median:.2f}×"
        mark = "slower" if change.slower else ""
        made.add_row(Text(change.name), _shown(before), _shown(now), ratio, mark)
    return made


def other_settings(old: Results, new: Results) -> list[str]:
    """Names of the settings that both files tell, and that differ."""
    before, now = (yaml.safe_load(each.facts.get("settings", "{}")) for each in (old, new))
    return [
        f"{group}.{name}"
        for group, settings in before.items()
        for name, value in settings.items()
        if now.get(group, {}).get(name, value) != value
    ]


def _shown(row: Row | None) -> str:
    if row is None:
        return "–"
    return "not measured" if row.failure is not None else milli(row.median)
