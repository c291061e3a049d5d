# Two commands on a fresh machine: make train, make test. Needs Python 3.11–3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test check bench report figures clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

train: $(VENV)/.installed ## train; make train ARGS="model=enhanced data=cifar10" passes overrides on
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.installed ## run the tests
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed ## the benchmarks, on a machine that does nothing else; make bench ARGS="only=peer"
	$(BIN)/python -m benchmarks $(ARGS)

report: $(VENV)/.installed ## report on all runs; make report ARGS=outputs/pooling on one sweep
	$(BIN)/python report.py $(or $(ARGS),outputs)

figures: $(VENV)/.installed ## lay the reports of all sweeps of outputs/ under docs/reports/
	for sweep in outputs/*/sweep.json; do \
		name=$$(basename $$(dirname $$sweep)); $(BIN)/python report.py outputs/$$name out=docs/reports/$$name || exit 1; \
	done

clean: ## remove caches and build leftovers, never a result, data or the environment
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# the stamp is written last: an installation that was cut short is taken up again
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) --version), needed is 3.11 to 3.13: make PYTHON=python3.12 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch and what it needs, gigabytes on Linux; README, Set-up, has a smaller way"
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@
	@echo "installed. Enter the environment, once in every terminal: source $(VENV)/bin/activate"
