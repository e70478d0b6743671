"""Why a benchmark ends without a result."""


class Stopped(Exception):
    """Nothing can be compared; the message says why in a line."""
