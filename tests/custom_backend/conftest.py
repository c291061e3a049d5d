import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests share the machine's cores, and torch's threads spin."""
    torch.set_num_threads(1)
