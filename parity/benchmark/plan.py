"""What of a network is measured, and how long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parity.benchmark.contender import Precision
from parity.benchmark.race import Race

Subject = Literal["train", "infer", "end-to-end", "scaling"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how long.

    Attributes:
      subject: What of the network.
      batch_sizes: Images a step, one after another; without any, the config's.
      precisions: Likewise.
      parts: Of the names of those who take part; without any, all do.
      samples: Of each.
      seconds: Most that each may take to start, and for its samples.
      together: How many may start at the same time.
      starts: How often each begins anew.
      workers: Processes of PyTorch's loader.
      checkouts: Other checkouts of this project that take part.
    """

    subject: Subject
    batch_sizes: Sequence[int] = ()
    precisions: Sequence[Precision] = ()
    parts: Sequence[str] = ()
    samples: int = 20
    seconds: float = 600.0
    together: int = 1
    starts: int = 1
    workers: int = 2
    checkouts: Sequence[Path] = ()

    def race(self, say: Callable[[str], object]) -> Race:
        """One as long as this, which tells `say` how it goes."""
        return Race(
            samples=self.samples,
            seconds=self.seconds,
            say=say,
            together=self.together,
            starts=self.starts,
        )
