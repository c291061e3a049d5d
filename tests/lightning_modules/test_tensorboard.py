"""Sweeps and single runs stand in one HPARAMS table, as TensorBoard itself makes it."""

import json
from pathlib import Path
from types import SimpleNamespace

from lightning.pytorch.loggers import TensorBoardLogger

from lightning_modules.training import _log_hyperparameters


def finish(folder: Path, config, value: float) -> None:
    """What a finished run leaves for TensorBoard."""
    folder.mkdir(parents=True)
    run = SimpleNamespace(folder=folder, config=config)
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    logger.log_metrics({"loss/train": value, "acc/val": value})
    results = {"metrics": ["acc"], "test_acc": value, "val_acc": value, "test_loss": 1.0, "val_loss": 1.0}
    _log_hyperparameters(SimpleNamespace(loggers=[logger], is_global_zero=True), run, results)
    logger.finalize("success")


def session_groups(folder: Path):
    """The rows of the HPARAMS table, and the names of its columns."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(TBContext(logdir=str(folder), data_provider=provider))
    request, here = api_pb2.ListSessionGroupsRequest(slice_size=100), RequestContext()
    request.allowed_statuses.extend([api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING])
    known = context.hparams_metadata(here, "0")
    experiment = context.experiment_from_metadata(here, "0", True, known, [])
    for info in experiment.metric_infos:
        request.col_params.add(metric=info.name)
    for column in experiment.hparam_infos:
        request.col_params.add(hparam=column.name)
    found = list_session_groups.Handler(here, context, "0", request).run().session_groups
    return found, [info.name for info in experiment.hparam_infos], [i.name for i in experiment.metric_infos]


def test_sweeps_and_single_runs_have_no_blank_rows(tmp_path, configure):
    jobs = []
    for rate in (0.1, 0.01):
        jobs.append({"folder": f"rate-{rate}", "overrides": {"optimizer.lr": str(rate)}})
        finish(tmp_path / "sweep" / f"rate-{rate}", configure(f"optimizer.lr={rate}"), rate)
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    finish(tmp_path / "a", configure("model=custom", "seed=3"), 0.5)
    finish(tmp_path / "b", configure("optimizer=sgd", "loss=focal"), 0.6)
    groups, hyperparameters, metrics = session_groups(tmp_path)
    assert len(groups) == 4
    wanted = {"optimizer.lr", "optimizer.momentum", "loss.gamma", "model.dropout", "seed", "data.dataset"}
    assert wanted <= set(hyperparameters)
    for group in groups:
        assert len(group.hparams) > 15
        assert {"optimizer.lr", "seed", "model"} <= set(group.hparams)
        measured = {value.name.group or value.name.tag for value in group.metric_values}
        assert measured, group
    assert any("test_acc" in name.tag for name in metrics)
