# `make help` lists the targets. Everything runs from the checkout; state is kept in .local/.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
PYTHON_STAMP := $(VENV)/.installed
NODE_STAMP := local/node_modules/.installed

# The longest of all tests, 500 histories of every source; it runs beside the others.
CONVERGENCE := tests/integration/sync/test_convergence.py

# Set PYTHON to choose another interpreter; it has to be 3.13.
PYTHON ?= $(shell for p in python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help setup run demo check test bench bench-sync fix

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(PYTHON_STAMP) $(NODE_STAMP) ## Install the pinned Python and npm packages, when they changed

run: setup ## Start the whole stack and keep it running until Ctrl-C
	@exec $(PY) -m local.up

demo: setup ## Import the files in examples/ through the API, sync five simulated trackers, show what came in
	@exec $(PY) -m local.demo

check: setup ## Lint, types and import rules
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/pyright
	@$(VENV)/bin/lint-imports --no-cache | tail -n 4

test: check ## Everything a change has to pass: checks, unit, property, integration and end-to-end tests
	@$(PY) -m pytest -q $(CONVERGENCE) & convergence=$$!; \
	$(PY) -m pytest -q --ignore=$(CONVERGENCE); rest=$$?; \
	wait $$convergence && exit $$rest

bench: setup ## Import 1,000,000 rows through the API and compare with plain SQL; takes about five minutes
	@$(PY) -m benchmarks.files

bench-sync: setup ## Sync 20,000 simulated issues of each source behind 50 ms latency
	@$(PY) -m benchmarks.sync

fix: setup ## Let the linter mend what it can
	@$(VENV)/bin/ruff check --quiet --fix . ; $(VENV)/bin/ruff format --quiet .

$(PYTHON_STAMP): requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.13 is needed: install it, or name it with make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing Python packages"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(NODE_STAMP): local/package.json local/package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || \
		{ echo "Node.js 20 or later is needed for Azurite, the storage emulator: install it and try again" >&2; exit 1; }
	@echo "Installing npm packages"
	@cd local && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
