"""Who is timed when: A B A B …, so that drift cancels."""

from collections.abc import Callable, Mapping


def take_turns(
    sample: Callable[[str], float | None],
    steps: Mapping[str, int],
    samples: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Seconds a step of each one's samples, by name.

    Args:
      sample: Takes one of the named; seconds a step, or None if that one takes part no more.
      steps: A sample's, by name, in the order of the turns.
      samples: Of each.
      seconds: That all of one's samples may take; the last one begins within them.
    """
    going = list(steps)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(samples):
        for name in list(going):
            if sum(taken[name]) * steps[name] >= seconds:
                continue
            found = sample(name)
            if found is None:
                going.remove(name)
            else:
                taken[name].append(found)
    return taken


def patience(seconds: float) -> float:
    """How long to wait for a sample of those that may take `seconds` together.

    One that began in time is waited for, and is as long as those before.
    """
    return 2 * seconds + 60
