"""Everything torch: networks, data, the LightningModule and what surrounds its training."""

import os

# Before torch is imported: its OpenMP threads otherwise spin while they wait, and where the cores are shared
# (a sweep's other jobs, a browser, custom_backend's threads) take them from whoever has work to do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
