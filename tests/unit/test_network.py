"""The interface that gloo and NCCL talk over is the one that leads to node 0."""

import os

import psutil
import pytest

from hpstudy.worker.network import choose_interface, interface_to

NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


OWN = [
    (name, address.address)
    for name, addresses in psutil.net_if_addrs().items()
    for address in addresses
    if address.family.name in {"AF_INET", "AF_INET6"} and "%" not in address.address
]


@pytest.mark.parametrize(("interface", "address"), OWN)
def test_node_zero_finds_the_interface_that_has_its_address_of_either_family(interface: str, address: str) -> None:
    assert interface_to(address) == interface


def test_a_name_is_resolved() -> None:
    assert interface_to("localhost") == "lo"


def test_what_the_template_says_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "net1")
    choose_interface("127.0.0.1")
    assert [os.environ.get(name) for name in NAMES] == ["net1", "=lo"]
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib")
    choose_interface("not a name")  # not even looked up
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib"


def test_without_a_way_there_both_choose_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    choose_interface("nowhere.invalid")
    assert not any(name in os.environ for name in NAMES)
    assert "no network interface leads to nowhere.invalid" in caplog.text
