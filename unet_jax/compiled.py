"""Programs that XLA has compiled, kept for the next command."""

from pathlib import Path

FOLDER = Path("~/.cache/unet-jax/compiled")
ROOM = 4 * 2**30
"""Bytes; beyond them, what was used longest ago goes."""
WORTH = 0.2
"""Seconds; what compiles faster is not kept."""


def keep_compiled(folder: Path = FOLDER) -> None:
    """Has JAX keep what it compiles, and take what it needs from there; before it compiles.

    JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps
    nothing. Nor is anything kept where the folder cannot be made.

    Args:
      folder: Whose files are run as they are: nobody else should be able to write there.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = folder.expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", ROOM)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH)
