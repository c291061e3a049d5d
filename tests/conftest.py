"""What several tests share."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiment.command_line import CONFIG_DIR


@pytest.fixture
def configure(tmp_path) -> Callable[..., DictConfig]:
    """Compose a run's configuration; what it leaves goes to the test's own folder."""

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("train", [f"output_dir={tmp_path / 'outputs'}", *overrides])

    return composed
