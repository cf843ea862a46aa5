"""The ranks of several nodes talk over the interface on which the nodes found one another."""

from pathlib import Path

import pytest

from tests.ranks.groups import group


@pytest.mark.parametrize(("own", "gloo"), [({}, "lo"), ({"GLOO_SOCKET_IFNAME": "lo,lo"}, "lo,lo")])
def test_the_ranks_of_two_nodes_use_it_unless_the_pod_says_otherwise(
    tmp_path: Path, own: dict[str, str], gloo: str
) -> None:
    with group(tmp_path, "says_where", nodes=2, environment=own, budget={"maxTrials": 1}) as made:
        assert made.join() == [0, 0]
        assert made.states() == ["COMPLETE"]
    assert [(tmp_path / f"interfaces-{rank}").read_text() for rank in range(2)] == [f"{gloo} =lo"] * 2
