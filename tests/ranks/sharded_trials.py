"""An objective function that shards; apart from trials_of_tests, whose workers need not import as much."""

import copy

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hpstudy import Trial, TrialPruned


def sharded(trial: Trial) -> dict[str, float]:
    """A model whose weights are spread over the ranks (FSDP), beside the same model whole."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    whole = torch.nn.Linear(8, 4)
    inputs, targets = torch.randn(4 * trial.world_size, 8), torch.randn(4 * trial.world_size, 4)
    model = copy.deepcopy(whole)
    fully_shard(model, mesh=init_device_mesh("cpu", (trial.world_size,)))
    shard = model.weight.to_local().numel() / whole.weight.numel()
    mine = slice(4 * trial.rank, 4 * trial.rank + 4)
    for step in range(3):
        losses = []
        for each, part in ((whole, slice(None)), (model, mine)):
            loss = (each(inputs[part]) - targets[part]).square().mean()
            loss.backward()
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter -= trial.params["x"] * parameter.grad
                    parameter.grad = None
            losses.append(loss.detach())
        dist.all_reduce(losses[1])
        loss = (losses[1] / trial.world_size).item()
        trial.report({"loss": loss if trial.params["x"] < 0.1 else 1e7}, step)
        if trial.should_prune():
            raise TrialPruned
    return {"loss": loss, "whole": losses[0].item(), "shard": shard}


def saves_sharded(trial: Trial) -> float:
    """Each rank saves its own shard, on its own node."""
    dist.init_process_group("gloo")
    model = torch.nn.Linear(8, 4)
    fully_shard(model, mesh=init_device_mesh("cpu", (trial.world_size,)))
    dcp.save({"model": model.state_dict()}, checkpoint_id=trial.checkpoint_dir / "model")
    trial.report(1.0, 1)
    return 1.0
