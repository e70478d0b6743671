"""What contenders do, each with its kind of contestant."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from parity.benchmark.agreement import LIMITS
from parity.benchmark.contender import HELD, LOADED, REFERENCE, Contender
from parity.benchmark.contestant import Contestant
from parity.benchmark.jax_contestant import JaxInference, JaxTraining
from parity.benchmark.jax_epochs import JaxEpochs
from parity.benchmark.plan import Subject
from parity.benchmark.race import Entry
from parity.benchmark.task import Task
from parity.benchmark.torch_contestant import TorchInference, TorchTraining
from parity.benchmark.torch_epochs import TorchEpochs

Job = Literal["train", "infer", "from records", "from memory"]
JOBS: dict[Subject, tuple[Job, ...]] = {
    "train": ("train",),
    "infer": ("infer",),
    "end-to-end": ("train", "from records", "from memory"),
}
ADDED = {"from records": LOADED, "from memory": HELD}
CONTESTANTS: dict[tuple[Job, str], Callable[[Task, Contender], Contestant]] = {
    ("train", "jax"): JaxTraining,
    ("train", "torch"): TorchTraining,
    ("infer", "jax"): JaxInference,
    ("infer", "torch"): TorchInference,
    ("from records", "jax"): partial(JaxEpochs, held=False),
    ("from records", "torch"): TorchEpochs,
    ("from memory", "jax"): partial(JaxEpochs, held=True),
}


def entry(task: Task, contender: Contender, job: Job) -> Entry:
    """The contender as it takes part in a race.

    Args:
      task: What is to be run.
      contender: How.
      job: What of it.
    """
    kind = "infer" if job == "infer" else "train"
    same: Job = "from records" if job == "from memory" else job
    reference = None if contender == REFERENCE else entry(task, REFERENCE, same)
    return Entry(
        name=contender.name + ADDED.get(job, ""),
        make=partial(CONTESTANTS[job, contender.framework], task, contender),
        reference=reference,
        limit=LIMITS[kind][contender.precision],
        missing=contender.missing(task.gpu),
        checkout=contender.checkout,
    )
