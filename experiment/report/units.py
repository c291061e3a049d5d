"""Numbers as people read them, see :mod:`experiment.metrics.units`."""

from experiment.metrics.units import effect as effect
from experiment.metrics.units import factor as factor
from experiment.metrics.units import name as name
from experiment.metrics.units import number as number
from experiment.metrics.units import spread as spread
from experiment.metrics.units import unit as unit
