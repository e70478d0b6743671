"""A host that cannot start ends the others, which would wait for it."""

import pytest

from unet_jax.cli import fail
from unet_jax.hosts import Hosts


def asking(others: bool) -> tuple[Hosts, list[bool]]:
    """A host beside others that are well, or are not; and what it told them."""
    told: list[bool] = []

    def all_well(well: bool) -> bool:
        told.append(well)
        return well and others

    return Hosts(this=1, count=2, all_well=all_well), told


def test_all_go_on_where_all_are_well():
    hosts, told = asking(True)
    with hosts.together():
        assert told == []
    assert told == [True]


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), ValueError("a mistake")])
def test_the_others_are_told_of_any_end(error: BaseException):
    hosts, told = asking(True)
    with pytest.raises(type(error)), hosts.together():
        raise error
    assert told == [False]


def test_the_end_of_another_is_this_ones(capsys: pytest.CaptureFixture[str]):
    hosts, told = asking(False)
    with pytest.raises(SystemExit) as stop, hosts.together():
        pass
    assert (stop.value.code, told) == (2, [True])
    assert capsys.readouterr().err == "error: another host could not start; it says why\n"


def test_one_alone_asks_nobody(capsys: pytest.CaptureFixture[str]):
    with Hosts().together():
        pass
    with pytest.raises(SystemExit), Hosts().together():
        fail("here")
    assert capsys.readouterr().err == "error: here\n"
