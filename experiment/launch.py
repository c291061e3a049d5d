"""Which launcher started this process, as one of several that train the same run."""

import os
from typing import NamedTuple

SLURMS_OWN = 0xFFFFFFF0
"""Numbers of steps from which on they are Slurm's: the batch script's, an interactive shell's."""


class Launch(NamedTuple):
    """What started this process.

    Args:
        by: ``torchrun`` or ``srun``; None: nothing that starts several.
        processes: how many it started for the same run.
        name: the same in all of them, and in no others.
    """

    by: str | None
    processes: int = 1
    name: str = ""


def launched() -> Launch:
    """What started this process, as its environment tells."""
    known = os.environ
    if "TORCHELASTIC_RUN_ID" in known:
        by, processes = "torchrun", known.get("WORLD_SIZE", 1)
        names = "MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID TORCHELASTIC_RESTART_COUNT"
    elif "SLURM_NTASKS" in known and int(known.get("SLURM_STEP_ID", SLURMS_OWN)) < SLURMS_OWN:
        by, processes = "srun", known["SLURM_NTASKS"]
        names = "SLURM_JOB_ID SLURM_STEP_ID SLURM_RESTART_COUNT"
    else:
        return Launch(None)
    return Launch(by, int(processes), "-".join(known.get(name, "0") for name in names.split()))
