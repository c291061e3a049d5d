"""What torchrun starts twice for `test_launchers.py`: a whole run, one interrupted and resumed, and so on."""

import logging
import os
import signal
import sys
from functools import partial

from lightning.pytorch import Callback

from experiment.errors import UserError
from lightning_modules import train, training

folder, *overrides = sys.argv[1:]
overrides += [f"output_dir={folder}", "trainer=ddp", "trainer.accelerator=cpu"]
rank = os.environ["RANK"]
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
print(f"process {rank} is {os.getpid()}", flush=True)


class Terminate(Callback):
    """Sends one of the two processes a signal within the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        if rank == "1" and (trainer.current_epoch, batch_idx) == (1, 2):
            signal.raise_signal(signal.SIGTERM)


class Poison(Callback):
    """Makes the loss of one of the two processes NaN."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if rank == "1" and batch_idx == 2:
            outputs["loss"] = outputs["loss"] * float("nan")


def with_callback(callback: Callback, *arguments, **options):
    trainer = build_trainer(*arguments, **options)
    trainer.callbacks.insert(0, callback)
    return trainer


train(*overrides, "name=whole")

build_trainer, training.build_trainer = training.build_trainer, partial(with_callback, Terminate())
os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
try:
    train(*overrides, "name=interrupted")
except SystemExit as end:
    print(f"process {rank} ended with code {end.code}", flush=True)
os.environ["TORCHELASTIC_RESTART_COUNT"] = "2"
training.build_trainer = partial(with_callback, Poison())
try:
    train(*overrides, "name=diverged")
except (UserError, SystemExit) as end:
    print(f"process {rank} ended with {end}", flush=True)
training.build_trainer = build_trainer
train(f"resume={folder}/interrupted")

launched_by_torchrun = {name: os.environ.pop(name) for name in [*os.environ] if "TORCHELASTIC" in name}
for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
    del os.environ[name]
slurm = {
    "JOB_ID": "4711",
    "STEP_ID": "0",
    "NTASKS": "2",
    "NNODES": "1",
    "NODEID": "0",
}
slurm |= {"PROCID": rank, "LOCALID": rank, "JOB_NAME": "bash"}  # as from an interactive shell
os.environ |= {f"SLURM_{name}": value for name, value in slurm.items()}
train(*overrides, "name=srun", "trainer.max_epochs=1")

for name in [*slurm, "NTASKS_PER_NODE"]:
    del os.environ[f"SLURM_{name}"]
os.environ |= launched_by_torchrun | {"TORCHELASTIC_RESTART_COUNT": "3", "RANK": rank, "LOCAL_RANK": rank}
os.environ |= {"GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
train(*overrides, "name=endless", "trainer.max_epochs=100000")
