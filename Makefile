SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECKOV := build/checkov/bin/checkov
FAULTS := tests/faults tests/pipeline/test_legacy.py tests/service/test_s3_odd_answers.py

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow faults test-containers test-gpu check lint types audit licences wheel images sbom docs clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(INSTALLED)  ## .venv with everything (about 3 minutes, 7 GB)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "Graftline needs Python 3.11; name one with PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing into $(VENV): about 3 minutes and 7 GB the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## real images to a promoted ONNX model, on this machine
	$(BIN)/python examples/write_digits.py .graftline/digits
	$(BIN)/graftline run examples/digits.yaml

test: install  ## the tests, under 15 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow and not gpu and not containers" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install $(CHECKOV)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow tests

faults: install  ## the campaign of faults, slow tests included; fills in docs/reliability.md
	$(BIN)/python -m pytest $(FAULTS) -n 3 --dist worksteal --faults-table docs/reliability.md

test-containers: install  ## builds the images and runs every step in them
	$(BIN)/python -m pytest -m containers tests/containers

test-gpu: install  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu tests/gpu

lint: install  ## format, lint and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy
	MYPYPATH=components:pipelines:benchmarks $(BIN)/mypy benchmarks/*.py

wheel: install  ## build the wheel, install it alone, import it
	rm -rf dist build/wheel-env
	$(BIN)/python -m build --wheel --outdir dist > /dev/null
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build && wheel-env/bin/python -c "import graftline, graftline_pipelines.graphs.training; print('imported', graftline.__version__)"
	build/wheel-env/bin/graftline --version
	rm -rf build/wheel-env

audit: install  ## known holes in the pinned dependencies; says SKIPPED without a network
	$(BIN)/python docker/audit.py

licences: install  ## docs/licences.md: the licences of what Graftline needs to run
	$(BIN)/python docker/licences.py

check: lint types audit test wheel  ## what CI runs

images:  ## the container images, by docker, podman or buildah (docker/build.sh says how to set more)
	docker/build.sh

sbom: install  ## sbom.json: what .venv holds, or with IMAGE=... what an image holds (CycloneDX)
	docker/sbom.sh $(or $(IMAGE),--here)

$(CHECKOV):  # the policy scanner of the manifests, apart: its requirements conflict with ours
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30

docs: install  ## the generated reference of the run file
	$(BIN)/python -m graftline_pipelines.runfile.reference docs/run-file.md run.schema.json

clean:  ## remove what was built (not .graftline)
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
