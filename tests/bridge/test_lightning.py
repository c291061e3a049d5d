"""The engine under Lightning's trainer and under data-parallel processes."""

import copy

import lightning
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from twins import ENGINE, batch, network, twins

from lightning_modules.optim import CustomAdam


class Classifier(lightning.LightningModule):
    def __init__(self, engine, optimizer):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.optimizer, self.losses = network(engine), optimizer, []

    def training_step(self, batch, _):
        loss = cross_entropy(self.network(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=20)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(model, folder, data, epochs, checkpoint=None):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        gradient_clip_val=0.5,
        accumulate_grad_batches=2,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=8), ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*isinstance.*LeafSpec.*")
def test_training_with_clipping_accumulation_schedule_and_resume_follows_torch(tmp_path):
    torch.manual_seed(1)
    data = TensorDataset(*batch(torch.float32, 64))
    theirs, ours, resumed = Classifier(nn, torch.optim.Adam), *(Classifier(ENGINE, CustomAdam) for _ in range(2))
    fit(theirs, tmp_path, data, 4)
    fit(ours, tmp_path, data, 4)
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
    assert theirs.losses[0] != theirs.losses[-1]

    first = Classifier(ENGINE, CustomAdam)
    fit(first, tmp_path, data, 2).save_checkpoint(tmp_path / "half.ckpt")
    fit(resumed, tmp_path, data, 4, tmp_path / "half.ckpt")
    assert first.losses + resumed.losses == ours.losses
    for mine, other in zip(resumed.state_dict().values(), ours.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


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
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_the_whole_batch(tmp_path):
    model = twins().ours.eval()  # in training, each process would normalise by its own half
    x, labels = batch(size=8)
    torch.save((copy.deepcopy(model), x, labels), tmp_path / "task.pt")
    torch.multiprocessing.spawn(_gradients_of_a_share, (tmp_path,), nprocs=2)
    cross_entropy(model(x), labels).backward()
    shared = torch.load(tmp_path / "gradients.pt")
    for mine, parameter in zip(shared, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-9, atol=1e-12)
