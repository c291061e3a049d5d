"""Two processes on half a batch each."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_reference import batch, both


def _gradients_of_a_share(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    model, x, labels = torch.load(folder / "task.pt", weights_only=False)
    parallel = nn.parallel.DistributedDataParallel(model)
    cross_entropy(parallel(x.chunk(2)[rank]), labels.chunk(2)[rank]).backward()
    if rank == 0:
        torch.save([parameter.grad for parameter in model.parameters()], folder / "gradients.pt")
    torch.distributed.barrier()  # gloo aborts a process that leaves while the other is still at work
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_the_whole_batch(tmp_path):
    model = both().ours.eval()  # in training, each process would normalise by its own half
    x, labels = batch(size=8)
    torch.save((model, x, labels), tmp_path / "task.pt")
    torch.multiprocessing.spawn(_gradients_of_a_share, (tmp_path,), nprocs=2)
    cross_entropy(model(x), labels).backward()
    shared = torch.load(tmp_path / "gradients.pt")
    for mine, parameter in zip(shared, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-9, atol=1e-12)
