# make serve: install without torch and serve the embedded bundle. make test: everything checked.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := $(VENV)/bin

.PHONY: serve test lint types check-imports unit format clean

serve: $(VENV)/.serve
	@$(BIN)/offramp serve --host $(HOST) --port $(PORT)

test: $(VENV)/.test
	$(MAKE) --no-print-directory lint types check-imports unit

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test
	$(BIN)/mypy

check-imports: $(VENV)/.test
	$(BIN)/lint-imports

unit: $(VENV)/.test
	$(BIN)/python -m pytest -n logical --maxprocesses 4

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offramp needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

# A marker per set of extras: an install is repeated when pyproject.toml changes.
$(VENV)/.serve: $(VENV)/bin/python pyproject.toml
	@echo "Installing Offramp into $(VENV) (about 100 MB, no torch) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	@echo "Installing Offramp with torch and the development tools into $(VENV) (several GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,train,dev]'
	@touch $@ $(VENV)/.serve
