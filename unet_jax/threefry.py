"""JAX' default random numbers, by code that a CPU's compiler has little work with.

On a CPU JAX has the rounds of its generator in a loop, and XLA compiles it anew for each draw: ten
functions, and as many passes over memory. Written out, a draw is one function.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl, threefry_prng_impl

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def key(seed: int) -> jax.Array:
    """Draws what `jax.random.key(seed)` draws, to a rounding of the last place.

    Args:
      seed: Likewise.
    """
    data = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    return jax.random.wrap_key_data(data, impl=_WRITTEN_OUT)


@jax.jit
def _hashed(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds: Salmon et al. (2011, https://doi.org/10.1145/2063384.2063405).

    Args:
      key: uint32 [2].
      high: uint32, the first word of each that is hashed.
      low: uint32, the second one.
    """
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA)
    high, low = high + keys[0], low + keys[1]
    for n in range(5):
        for rotation in ROTATIONS[n % 2]:
            high = high + low
            low = (low << rotation | low >> 32 - rotation) ^ high
        high, low = high + keys[(n + 1) % 3], low + keys[(n + 2) % 3] + jnp.uint32(n + 1)
    return high, low


def _fold_in(key: jax.Array, data: int) -> jax.Array:
    return jnp.stack(_hashed(key, jnp.uint32(0), jnp.asarray(data, jnp.uint32)))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    size = math.prod(shape)
    if bit_width != 32 or size >= 2**32:
        return threefry_prng_impl.random_bits(key, bit_width, shape)
    high, low = _hashed(key, jnp.uint32(0), jnp.arange(size, dtype=jnp.uint32))
    return (high ^ low).reshape(shape)


_WRITTEN_OUT = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32, written out",
    tag="fryw",
)
