# make demo   train, merge and serve the embedded model, and print what it says
# make test   the tests: offline, on the CPU
# make check  ruff and mypy
# make reference  write docs/cli-reference.md and docs/flags.md anew
# make install  what the others do first: a virtual environment in .venv with swiftlite in it
# PYTHON=… picks another Python (3.11 or newer), VENV=… another folder; a torch that is there already is kept.

VENV ?= .venv
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.swiftlite-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CPU_TORCH := torch==2.13.0+cpu
CPU_INDEX := https://download.pytorch.org/whl/cpu
HAS_TORCH = $(BIN)/python -c 'import torch' 2>/dev/null

.PHONY: demo test check reference install clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP)
	@$(BIN)/python examples/demo/demo.py

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m swiftlite.cli.reference --check docs

reference: $(STAMP)
	@$(BIN)/python -m swiftlite.cli.reference docs

install: $(STAMP)

$(STAMP): pyproject.toml
	@test -n '$(PYTHON)' || { echo 'swiftlite needs Python 3.11 or newer; name one with make PYTHON=…'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv) and repeat.'; exit 1; }
	@test -x $(BIN)/python || { echo 'Making a virtual environment in $(VENV).'; $(PYTHON) -m venv $(VENV); }
	@if $(HAS_TORCH); then \
		echo 'Keeping the torch in $(VENV).'; \
	elif [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; then \
		echo 'Installing torch for the GPU; this takes a few minutes.'; \
	else \
		echo 'Installing torch for the CPU.'; \
		$(PIP) '$(CPU_TORCH)' 2>/dev/null \
			|| $(PIP) --retries 1 --timeout 20 --index-url $(CPU_INDEX) '$(CPU_TORCH)' 2>/dev/null \
			|| $(PIP) torch==2.13.0; \
	fi
	@echo 'Installing swiftlite and what it needs.'
	@$(PIP) -e '.[dev,plots,ui]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
