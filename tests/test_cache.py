"""Where a prepared set lies while it is trained on."""

import pytest

from unet_jax import cache
from unet_jax.cache import choose_place


@pytest.mark.parametrize(
    ("host_free", "device_free", "place"),
    [
        (400, None, "host"),
        (399, None, "none"),
        (400, 400, "device"),
        (400, 399, "host"),
        (399, 400, "none"),  # It would have to go through host memory.
        (399, 0, "none"),
    ],
)
def test_auto_takes_the_nearest_place_with_room_for_four(
    host_free: int, device_free: int | None, place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "free_host_memory", lambda: host_free)
    assert choose_place("auto", 100, device_free) == place


@pytest.mark.parametrize("wanted", ["device", "host", "none"])
def test_a_place_that_is_asked_for_is_taken(wanted: str):
    assert choose_place(wanted, 1 << 60, None) == wanted
