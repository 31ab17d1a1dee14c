# make serve: install without torch and serve the embedded bundle. make test: install everything, run all checks.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := $(VENV)/bin
# Packages are installed without bytecode (--no-compile): the first process that imports a module writes it.
INSTALL ?= $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-uvicorn test-clients test-deploy test-images test-ray bench-quick lint types check-imports unit locks format \
	screenshots clean

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

# The HTTP server with the oldest uvicorn that pyproject.toml allows; `make test` has the newest. About two
# minutes; half a minute without the tests that measure time: UVICORN_TESTS="not deploy and not serial".
UVICORN_TESTS ?= not deploy
test-uvicorn: $(VENV)/.test
	@set -e; target=$$(mktemp -d); trap 'rm -rf "$$target"' EXIT; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$$target" \
		"uvicorn==$$($(BIN)/python -m tests.serving.http.oldest_uvicorn)"; \
	PYTHONPATH=$$target $(BIN)/python -m pytest -n logical --maxprocesses 4 -m "$(UVICORN_TESTS)" \
		tests/serving/http tests/serving/api/asgi/test_load_shedding.py

# The server with the packages of KServe and MLServer, which need environments of their own. Half a minute.
test-clients: $(VENV)/.test
	$(BIN)/python -m pytest -m clients tests/clients

# Needs root on Debian: builds the image, starts Prometheus and the proxy, trains the digits. About five minutes.
test-deploy: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy tests/deploy

# Builds, starts and uses the images for GPUs and for training. Needs what test-deploy needs, and about 25 GB of
# disk. A quarter of an hour. Prints the images' sizes.
test-images: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy -rP tests/images

# Starts, changes and kills Ray clusters on one machine and on two network namespaces, which need root. About
# eight minutes.
test-ray: $(VENV)/.test
	$(BIN)/python -m pytest -m deploy tests/ray

# The headline figures of serving as ratios, under five minutes; with CIFAR-100 below OFFRAMP_DATA, if it is there.
bench-quick: $(VENV)/.test
	$(BIN)/python -m benchmarks.quick

# Pins the images' packages: one resolution for all platforms, with the hash of every file.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make locks' --upgrade
locks: $(VENV)/.test
	$(LOCK) docker/locks/build.in -o docker/locks/build.txt
	$(LOCK) pyproject.toml --extra cpu -o docker/locks/serving-cpu.txt
	$(LOCK) pyproject.toml --extra gpu -o docker/locks/serving-gpu.txt
	# Triton (1 GB) needs a C compiler, which the image does not have.
	$(LOCK) pyproject.toml --extra cpu --extra train --no-emit-package triton \
		-o docker/locks/training.txt

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Makes the pictures of docs/guide/page.md.
screenshots: $(VENV)/.test
	$(BIN)/python -m tests.page.screenshots docs/images/page

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offramp needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

# A marker file per set of extras: the install is repeated when pyproject.toml changes.
$(VENV)/.serve: $(VENV)/bin/python pyproject.toml
	@echo "Installing Offramp into $(VENV) (about 100 MB, no torch) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	@echo "Installing Offramp with torch and the development tools into $(VENV) (several GB) ..."
	@$(INSTALL) --editable '.[cpu,train,otel,ray,dev]'
	@touch $@ $(VENV)/.serve
