"""What a run is: its configuration, its folder and its figures. Imports neither torch nor lightning."""
