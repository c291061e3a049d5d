"""The run that a composed configuration means: a new one, one to go on with, or a job of a sweep."""

import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from experiment.config import choices, register_resolver, run_config
from experiment.entry_point import ROOT, argument, invocation, trusted_packages
from experiment.errors import UserError
from experiment.launch import launched
from experiment.precision import problems_here
from experiment.provenance import available_cores
from experiment.run import FOLDER_VARIABLE, LOCK, Run
from experiment.schema import problems
from experiment.sweep import Job, jobs_in, problems_in_sweep

log = logging.getLogger(__name__)

_held: list[FileLock] = []
"""The locks of GPUs, held until this process ends."""

PREEMPTED = 128 + 15
"""Exit code of a run that SIGTERM, SIGHUP or a cluster's warning ended; it can be resumed."""


def termination_signals() -> list[int]:
    """The signals that ask a run to end: SIGTERM, a closed terminal's and the one by which Slurm warns."""
    names = ("SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has the first one only
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def install_handler(number: int, handler: Callable[[int, FrameType | None], None]) -> Callable[[], object]:
    """Handle a signal, unless this process ignores it (as under nohup) or this is not its main thread.

    Returns:
        What puts the former handler back.
    """
    former: Any = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or former in (signal.SIG_IGN, None):
        return lambda: None
    signal.signal(number, handler)
    return partial(signal.signal, number, former)


@contextmanager
def ending_on_signals(first: Callable[[], None] | None = None) -> Iterator[None]:
    """Have the signals that ask a run to end raise SystemExit(:data:`PREEMPTED`).

    Args:
        first: is done before, also at Ctrl-C; a second signal does not wait for it.
    """
    received: list[int] = []

    def end(number: int, _: object) -> None:
        received.append(number)
        if first and len(received) == 1:
            first()
        raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(PREEMPTED)

    with ExitStack() as restored:
        for number in (*termination_signals(), *[signal.SIGINT] * (first is not None)):
            restored.callback(install_handler(number, end))
        yield


def requeue_slurm_job() -> None:
    """Hand the Slurm job of this process back, to be started again when its turn comes."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as failure:
        reason = failure.stderr.strip() if isinstance(failure, subprocess.CalledProcessError) else failure
        log.warning(f"Slurm job {job} was not requeued: {reason}")


def claim_run(composed: DictConfig, hydra_config: DictConfig) -> Run:
    """The run that a single configuration means: a new folder, or with ``resume`` the folder named there.

    Args:
        composed: the configuration.
        hydra_config: its ``hydra`` node.

    Raises:
        UserError: for values that are not allowed, or no run to resume.
    """
    config = run_config(composed)
    if wrong := problems(config):
        raise UserError("\n       ".join(wrong))
    if config.resume:
        path = Path(config.resume)
        is_checkpoint = path.suffix == ".ckpt" and path.parent.name == "checkpoints"
        run = Run.open(path.parent.parent if is_checkpoint else path)
        run.resumed_from = run.checkpoint(str(path.resolve())) if is_checkpoint else None
        given = [override.lstrip("+").split("=")[0] for override in hydra_config.overrides.task]
        run.changes = {key: OmegaConf.select(config, key) for key in given if key != "resume"}
        run.check_resumable()
        _check_machine(run.config)
        return run
    _check_machine(config)
    chosen = choices(hydra_config)
    automatic = f"{chosen['model']}-{chosen['data']}-{datetime.now():%Y%m%d-%H%M%S}"
    return Run.create(config, Path(config.output_dir), config.name or automatic, chosen)


def _check_machine(config: DictConfig) -> None:
    """Refuse a training that needs a GPU, more processes than this machine can carry, or than anyone starts.

    One takes 0.8 GB. Where some are missing, the others wait for them for ever.

    Raises:
        UserError: saying how to start as many; ``ALLOW_MORE_PROCESSES_THAN_CORES`` allows more than cores.
    """
    if wrong := problems_here(config.trainer):
        raise UserError("\n       ".join(wrong))
    devices, nodes, cores = config.trainer.devices, config.trainer.num_nodes, available_cores()
    on_cpu = config.trainer.accelerator == "cpu" or not Path("/proc/driver/nvidia/gpus").exists()
    asked_for = os.environ.get("ALLOW_MORE_PROCESSES_THAN_CORES")
    if config.trainer.accelerator != "gpu" and on_cpu and devices > cores and not asked_for:
        raise UserError(
            f"trainer.devices={devices}: a process for each, and this machine has {cores} cores for them. "
            "Choose fewer, or set ALLOW_MORE_PROCESSES_THAN_CORES=1"
        )
    launcher, started, _ = launched()
    if launcher and started != devices * nodes:
        raise UserError(
            f"{launcher} started {started} process{'es' * (started > 1)} of this run, but trainer.devices="
            f"{devices} on trainer.num_nodes={nodes} {'is' if devices * nodes == 1 else 'are'} "
            f"{devices * nodes}: give the trainer as many as there are, as in trainer=ddp trainer.devices=2"
        )
    if nodes > 1 and not launcher and "NODE_RANK" not in os.environ:
        raise UserError(
            f"trainer.num_nodes={nodes}: nothing starts the processes of the other nodes. Start this command "
            "on all of them, with srun or torchrun"
        )


def continuation(run: Run) -> str:
    """What to tell a person who has interrupted a run; nothing in the processes that only help with it."""
    if run.has_begun and run.is_writer:
        return f"continue with: {invocation('train')} {argument('resume', str(run.folder))}"
    return "stopped before the first step: nothing is left of this run" if run.is_new else ""


def check_launched_once() -> None:
    """Refuse a sweep that torchrun or srun started several times.

    Raises:
        UserError: saying so.
    """
    launcher, started, _ = launched()
    if started > 1:
        raise UserError(
            f"{launcher} started {started} processes of one sweep: start it once, it starts its jobs itself"
        )


SECONDS_TO_SAVE = 60
PARENT_VARIABLE = "EXPERIMENT_PARENT"
"""Names the process, as host:number, without which the processes that it has started have no work to do."""

WATCH = "end with parent"


def be_parent() -> None:
    """Have the processes that this one starts find the project, and end when it ends, however that is."""
    here = [str(Path.cwd())] if trusted_packages() else []  # where these often lie
    known = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *known, *here]))
    os.environ.setdefault(PARENT_VARIABLE, f"{platform.node()}:{os.getpid()}")


def _parent() -> int | None:
    """Number of the process that :func:`be_parent` names, if that is another one on this machine."""
    host, _, number = os.environ.get(PARENT_VARIABLE, "").partition(":")
    is_another = host == platform.node() and int(number) != os.getpid()
    has_cluster = "SLURM_JOB_ID" in os.environ  # which takes its place
    return int(number) if is_another and not has_cluster else None


def end_with_parent() -> None:
    """End this process, as SIGTERM does, once the one that :func:`be_parent` names is gone."""
    if launched().by == "torchrun":  # its agent, whatever started that
        os.environ[PARENT_VARIABLE] = f"{platform.node()}:{os.getppid()}"
    parent = _parent()
    if parent is None or any(thread.name == WATCH for thread in threading.enumerate()):
        return  # an earlier run of this process started it; a second signal would not wait for the checkpoint

    def watch() -> None:
        while _is_alive(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + SECONDS_TO_SAVE
        time.sleep(1)
        while FOLDER_VARIABLE in os.environ and time.monotonic() < end:  # it is still saving
            time.sleep(0.1)
        os._exit(PREEMPTED)  # a worker of joblib's would go on to the next job

    threading.Thread(target=watch, daemon=True, name=WATCH).start()


def end_jobs(folder: Path) -> None:
    """Have the processes that this one has started save and end the runs in a sweep's ``folder``."""
    print("the jobs save and end; a second Ctrl-C does not wait for them", file=sys.stderr, flush=True)
    mine = f"{PARENT_VARIABLE}={os.environ.get(PARENT_VARIABLE)}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):  # elsewhere they notice when this process has ended
        with suppress(OSError):
            if mine in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                os.kill(int(path.parent.name), signal.SIGTERM)
    end = time.monotonic() + SECONDS_TO_SAVE
    while any(Run(path.parent).is_busy for path in folder.glob(f"*/{LOCK}")) and time.monotonic() < end:
        time.sleep(0.2)


def _is_alive(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    if Path("/proc/self/stat").exists():  # a process that ended and was not waited for is still listed
        try:
            return state.read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False
    try:
        os.kill(number, 0)
    except OSError:
        return False
    return True


def claim_job(composed: DictConfig, hydra_config: DictConfig) -> Run | None:
    """The run that a job of a sweep is to train, or None where it is not to be trained now.

    Args:
        composed: what the launcher hands over: ``resume`` is the job's folder, or null where another sweeper
            than ours drew the values.
        hydra_config: its ``hydra`` node.

    Raises:
        UserError: for values that are not allowed.
    """
    check_launched_once()
    if composed.sweep.dry_run:  # the folder sweeper plans without a job
        raise UserError("sweep.dry_run=true: this sweeper draws its jobs only while it runs; leave it out")
    for number in termination_signals() if _parent() else ():  # until the training handles them they end it,
        if signal.getsignal(number) != signal.SIG_IGN:  # which submitit would not have
            signal.signal(number, signal.SIG_DFL)
    folder = Path(hydra_config.sweep.dir).absolute()
    if composed.resume:
        run = Run.open(Path(composed.resume))
        run.is_job, run.stop_after = True, composed.sweep.get("stop_after")
    else:
        config = run_config(composed, folder)
        if wrong := problems_in_sweep(config):
            raise UserError("\n       ".join(wrong))
        task = (override.lstrip("+") for override in hydra_config.overrides.task)
        overrides = dict(item.split("=", 1) for item in task if not item.startswith("sweep."))
        job = Job(folder, overrides, config, choices(hydra_config))
        job.prepare()
        run = job.run
    if run.is_busy or (composed.sweep.fail_fast and _has_failed(folder)):
        return None
    claim_gpu(folder)
    return run


def _has_failed(folder: Path) -> bool:
    """Whether a job of the sweep in ``folder`` has failed since this session began.

    The sweeper has made the jobs that failed before pending again. Another sweeper than ours leaves no list
    of its jobs; there, what counts is a failure since this process began to work for it.
    """
    began = float(os.environ.setdefault("SWEEP_BEGAN", str(time.time())))
    jobs = jobs_in(folder)
    for path in folder.glob("*/provenance.json"):
        if path.parent in jobs if jobs else path.stat().st_mtime >= began:
            noted = Run(path.parent).provenance
            if noted.get("status") == "failed" or noted.get("refused"):
                return True
    return False


def claim_gpu(folder: Path, gpus: Sequence[str] | None = None) -> None:
    """Give this process a GPU of its own where the machine has several, before torch is imported.

    Processes of one sweep agree by locks in its ``folder``; with more processes than GPUs they share.

    Args:
        folder: of the sweep.
        gpus: names of the GPUs as ``CUDA_VISIBLE_DEVICES`` takes them; default: those this process sees.
    """
    if gpus is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        listed = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
        gpus = visible.split(",") if visible is not None else [str(index) for index in range(len(listed))]
    if len(gpus) < 2:
        return
    chosen = gpus[os.getpid() % len(gpus)]
    for gpu in gpus:
        lock = FileLock(folder / f".gpu-{gpu.replace('/', '_')}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        chosen = gpu
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen


def study_storage(folder: str) -> str:
    """Address of an Optuna study in the sweep's ``folder``, which is made if it is missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/study.db"


register_resolver("study_storage", study_storage, replace=True)  # of conf/hydra/sweeper/optuna.yaml
