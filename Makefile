# `make run` and `make test` do all the set-up on a machine that has only
# Python 3.11 (or newer) and pip. Every command that runs is printed. Nothing is
# installed again unless pyproject.toml changes.
#
#   make PYTHON=python3.12 run     another interpreter
#   make VENV=somewhere test       another place for the environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-targets lint release-check wheel dev

help:
	@echo "make run            install, then round ResNet18's first layer"
	@echo "make test           install with the test extra, then run the tests"
	@echo "make test-targets   the tests of arithmetic, rounded as on two other processors"
	@echo "make dev            install with everything that development needs"
	@echo "make lint           ruff check, ruff format --check, mypy"
	@echo "make release-check  lint, then all tests, the slow ones too"
	@echo "make wheel          build the wheel into dist/"

run: $(VENV)/.installed
	$(BIN)/python -m benchmarks.run --layer resnet18.conv1

# A worker for each core; tests wander to the one that is idle.
SHARED := -n auto --dist worksteal

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(SHARED)

# BLAS as for AVX2; then BLAS and kernels as for SSE alone, which numba keeps apart. One
# of the two differs from what the processor itself takes, whichever it is.
test-targets: $(VENV)/.installed-test
	OPENBLAS_CORETYPE=Haswell $(BIN)/python -m pytest $(SHARED) -m "arithmetic and not slow"
	OPENBLAS_CORETYPE=Nehalem NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=$(abspath $(VENV))/generic \
		$(BIN)/python -m pytest $(SHARED) -m "arithmetic and not slow"

dev: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

release-check: lint test-targets
	$(BIN)/python -m pytest $(SHARED) -m "slow or not slow"

wheel: $(VENV)/.installed
	$(PIP) wheel --no-deps --wheel-dir dist .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: $(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "error: $(PYTHON) lacks the venv module; install it (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Each environment contains the ones above it, so its stamps are set too.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[dev]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@
