"""When XLA's CPU backend computes what: by calling a function that does nothing."""

from threading import Lock

import jax
import jax.numpy as jnp

from unet_jax.onednn.call_frame import address, c_function

NAME = "unet_jax_stored"


def stored(x: jax.Array) -> jax.Array:
    """The same values, in memory before they are used.

    XLA could compute them anew within whatever they are used for, as often as that reads them.
    `lax.optimization_barrier` keeps it from that on other devices alone: its CPU backend removes
    barriers before it fuses. If x is used elsewhere, too, XLA copies it first.
    """
    return _called(x)


def one_after(x: jax.Array) -> jax.Array:
    """1, once x is in memory; what is multiplied with it is computed no sooner.

    XLA would begin with all that depends on nothing but parameters, and keep it until it is used.
    """
    return _called(jnp.ones((), x.dtype), x)


def _called(given: jax.Array, *further: jax.Array) -> jax.Array:
    """What is given, in its place, as the result of a function that is given it all."""
    _register()
    same, in_place = jax.ShapeDtypeStruct(given.shape, given.dtype), {0: 0}
    call = jax.ffi.ffi_call(NAME, same, vmap_method="broadcast_all", input_output_aliases=in_place)
    return call(given, *further)


_DOES_NOTHING = c_function(lambda addresses: None)
_ONE_AT_A_TIME = Lock()
_registered = False


def _register() -> None:
    """XLA refuses a second function of the same name, which another thread could come with."""
    global _registered
    with _ONE_AT_A_TIME:
        if not _registered:
            capsule = jax.ffi.pycapsule(address(_DOES_NOTHING))
            jax.ffi.register_ffi_target(NAME, capsule, platform="cpu")
            _registered = True
