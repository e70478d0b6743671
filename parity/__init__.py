"""Shows that a PyTorch module and a JAX function are the same model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.pairs.assertion import assert_parity
    from parity.pairs.pair import Pair

__all__ = ["Pair", "assert_parity"]


def __getattr__(name: str) -> Any:
    """Loads both frameworks only when they are needed: `--help` has no use for them."""
    if name == "Pair":
        from parity.pairs.pair import Pair

        return Pair
    if name == "assert_parity":
        from parity.pairs.assertion import assert_parity

        return assert_parity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
