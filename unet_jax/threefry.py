"""JAX' default random numbers, by code that is little work for a CPU's compiler.

On a CPU JAX has the rounds of its generator in a loop, which XLA compiles anew for each draw, into
a dozen functions, each a pass over memory. Written out, a draw is one function.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

NAME = "threefry2x32"
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def key(seed: int) -> jax.Array:
    """Draws the bits that `jax.random.key(seed)` draws, and is that key unless it pays.

    Floats that are made of them may be rounded once less, or once more.

    Args:
      seed: As there.
    """
    usual = jax.random.key(seed)
    rolled = jax.default_backend() == "cpu" and jax.random.key_impl(usual) == NAME
    # Otherwise JAX numbers what it hashes in another way, for the sake of old results.
    if not rolled or not jax.config.values["jax_threefry_partitionable"]:
        return usual
    return jax.random.key(seed, impl=_WRITTEN_OUT)


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


def _seed(seed: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl=NAME))


def _fold_in(key: jax.Array, data: int) -> jax.Array:
    return jnp.stack(_hashed(key, jnp.uint32(0), jnp.asarray(data, jnp.uint32)))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_numbered(key, math.prod(shape)), axis=-1).reshape(*shape, 2)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    size = math.prod(shape)
    if bit_width != 32 or size >= 2**32:
        usual = jax.random.wrap_key_data(key, impl=NAME)
        return jax.random.bits(usual, shape, f"uint{bit_width}")
    high, low = _numbered(key, size)
    return (high ^ low).reshape(shape)


def _numbered(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The hashes of 0, 1, 2 …, below 2³²."""
    return _hashed(key, jnp.uint32(0), jnp.arange(size, dtype=jnp.uint32))


_WRITTEN_OUT = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name=f"{NAME}, written out",
    tag="fryw",
)
