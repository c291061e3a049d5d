"""What a run is: its configuration, its folder and its figures. Imports neither torch nor lightning."""

from experiment.entry_point import require_packages

require_packages()
