"""Where the ranks of a trial meet."""

import socket

import pytest
from torch.distributed import TCPStore

from hpstudy.worker.rendezvous import serving_store


def test_a_store_takes_a_free_port_and_says_which() -> None:
    with serving_store(0) as one, serving_store(0) as other:
        assert one != other
        store = TCPStore("localhost", one, is_master=False, wait_for_workers=False)
        store.set("met", "yes")
        assert store.get("met") == b"yes"


def test_a_port_that_somebody_has_is_an_error_and_nobody_meets_there() -> None:
    with (
        serving_store(0) as taken,
        pytest.raises(RuntimeError, match=f"on port {taken}: .*address already in use"),
        serving_store(taken),
    ):
        pytest.fail("this is another group's")


def test_a_port_is_free_again_at_once_for_the_next_trial() -> None:
    for _ in range(3):
        with serving_store(0) as port:
            client = socket.create_connection(("localhost", port))
        with serving_store(port) as again:
            assert again == port
        client.close()
