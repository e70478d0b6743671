"""The threads of OpenMP (GNU's libgomp) that oneDNN computes with."""

import os

WAITING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"}
"""Where threads outnumber cores, as XLA's and OpenMP's do together, one without work looks for some
a thousand times before it sleeps, not a hundred. Elsewhere it is as by default: 300,000 times.
Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html."""


def keep_awake() -> None:
    """Has OpenMP's threads wait a little longer for their next work, if it is not loaded yet.

    Those of one convolution would be asleep when the next begins (docs/speed_cpu.md). What the
    environment says already is left alone.
    """
    if not WAITING.keys() & os.environ.keys():
        os.environ.update(WAITING)
