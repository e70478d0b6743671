"""Single faults, each planted on its own, and the comparison that must see and name it.

A fault that passes, or that is named by another layer or component than its own, is a survivor: it
says that the comparisons are too weak.
"""

from parity.mutations.augmentation import AUGMENTATION
from parity.mutations.initialisation import INITIALISATION
from parity.mutations.losses import LOSSES
from parity.mutations.metrics import METRICS
from parity.mutations.mutation import Mutation, Outcome, inject
from parity.mutations.networks import NETWORKS
from parity.mutations.optimisers import OPTIMISERS
from parity.mutations.schedules import SCHEDULES
from parity.mutations.steps import STEPS

__all__ = ["MUTATIONS", "Mutation", "Outcome", "inject"]

MUTATIONS = [
    *NETWORKS,
    *LOSSES,
    *METRICS,
    *AUGMENTATION,
    *INITIALISATION,
    *OPTIMISERS,
    *SCHEDULES,
    *STEPS,
]
