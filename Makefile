# make serve: install without torch and serve the embedded bundle. make test: everything checked.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := $(VENV)/bin

.PHONY: serve test test-deploy test-images test-ray lint types check-imports unit locks format screenshots clean

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

# Needs root and a Debian machine: builds the image, starts Prometheus and the proxy, trains the digits.
# About five minutes.
test-deploy: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy tests/deploy

# The large images, for GPUs and for training, built, started and used; needs what test-deploy needs, about
# 25 GB of free disk for the while, and a quarter of an hour. Prints the images' sizes.
test-images: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy -rP tests/images

# Ray clusters of one machine, and of two network namespaces, which need root; started, changed and killed.
# About eight minutes.
test-ray: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy tests/ray

# Pins what the images install. One resolution for all platforms, with every file's hash.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make locks' --upgrade
locks: $(VENV)/.test
	$(LOCK) docker/locks/build.in -o docker/locks/build.txt
	$(LOCK) pyproject.toml --extra cpu -o docker/locks/serving-cpu.txt
	$(LOCK) pyproject.toml --extra gpu -o docker/locks/serving-gpu.txt
	# Triton, a compiler of 1 GB, is of no use without the other one that it needs, and there is none.
	$(LOCK) pyproject.toml --extra cpu --extra train --no-emit-package triton \
		-o docker/locks/training.txt

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pictures of docs/guide/page.md.
screenshots: $(VENV)/.test
	$(BIN)/python -m tests.page.screenshots docs/images/page

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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,train,otel,ray,dev]'
	@touch $@ $(VENV)/.serve
