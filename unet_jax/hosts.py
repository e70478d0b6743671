"""The hosts that train together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unet_jax.cli import fail


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """One host, as it sees itself among all of them.

    Attributes:
      this: Which one this is, from 0; the first speaks and writes.
      count: How many there are.
      all_well: Whether all of them say so; they ask together.
    """

    this: int = 0
    count: int = 1
    all_well: Callable[[bool], bool] = bool

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends the command on all hosts if it ends on one of them in here.

        They would wait for it in their next step. What waits for other hosts in here must end alike
        on all of them.
        """
        try:
            yield
        except BaseException:
            self.all_well(False)
            raise
        if not self.all_well(True):
            fail("another host could not start; it says why")
