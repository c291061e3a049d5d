"""The engine under Lightning's trainer and under data-parallel processes."""

import lightning
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torch_reference import ENGINE, batch, network

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
    theirs, ours, resumed = (
        Classifier(nn, torch.optim.Adam),
        *(Classifier(ENGINE, CustomAdam) for _ in range(2)),
    )
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
