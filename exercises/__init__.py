"""A course: one file an exercise, each with a task and functions to fill in; `grade.py` checks them."""
