"""What is measured: one table with a row a metric, which everything that names a metric reads.

A metric of logits and labels is a file like ``acc.py`` here, or in a package of the user's own, and its
switch, ``conf/metrics/acc.yaml``. No torch.
"""

from importlib import import_module
from pkgutil import iter_modules

from experiment.metrics.predictions import Predictions as Predictions
from experiment.metrics.predictions import of_predictions as of_predictions
from experiment.metrics.predictions import read_predictions as read_predictions
from experiment.metrics.predictions import write_predictions as write_predictions
from experiment.metrics.table import TABLE as TABLE
from experiment.metrics.table import Labels as Labels
from experiment.metrics.table import Logits as Logits
from experiment.metrics.table import Metric as Metric
from experiment.metrics.table import learn as learn
from experiment.metrics.table import metric as metric
from experiment.metrics.table import row as row
from experiment.metrics.table import rows as rows

for module in iter_modules(__path__):  # each file adds its row
    import_module(f"{__name__}.{module.name}")
