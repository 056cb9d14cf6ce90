# Everything runs in $(VENV), which is made when it is missing or out of date: from requirements-run.lock for the
# pipeline and its UI, from requirements.lock, which has all extras, for tests and checks.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPLETE := $(VENV)/.complete
# What the benchmarks compare with is installed beside, not into, the environment.
BENCH := build/bench
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(shell for name in python3.13 python3.12 python3 python $(HOME)/.pyenv/shims/python3.13; do \
	path=$$(command -v $$name 2>/dev/null) && "$$path" -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
	2>/dev/null && echo "$$path" && break; done)
ARGS ?=
# Bytecode is written by the first process that needs it, and not for all that is installed.
unexport PYTHONDONTWRITEBYTECODE
# Tests run in so many processes, a file always in one; slow ones often wait for a server.
WORKERS ?= 2
SLOW_WORKERS ?= 4
# What make fuzz spends on each target.
SECONDS ?= 60
# Whole runs, then the folders in their order: many small files come last and keep all processes busy to the end.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --numprocesses

.DEFAULT_GOAL := help
.PHONY: help install run example test slow soak fuzz bench check docs ui report lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## Make the environment in which the pipeline and its UI run

run: $(STAMP)  ## Materialize everything and print the table; options go in ARGS="--source nascar_feed"
	$(BIN)/calibration-pipeline run $(ARGS)

example: $(STAMP)  ## Compare four example forecasters, whose faults are known, with the network
	$(BIN)/python examples/forecasters.py build/example
	$(BIN)/calibration-pipeline run --update --forecasters build/example $(ARGS)

test: $(COMPLETE)  ## Run the tests; options go in ARGS="-k crps"
	$(PYTEST) $(WORKERS) $(ARGS)

slow: $(COMPLETE)  ## Run the slow tests, and those that need real data, a browser or servers
	$(PYTEST) $(SLOW_WORKERS) -m "(slow or real or browser or server) and not soak" $(ARGS)

soak: $(COMPLETE)  ## Run what takes long: a daemon, whole runs, every fault (docs/faults.md)
	$(BIN)/python -m pytest -m soak -s $(ARGS)

bench: $(BENCH)/.installed  ## Measure speed and memory into benchmarks/results and docs/performance.md; parts go in ARGS="scores telemetry"
	$(BENCH)/bin/python -m benchmarks.performance $(ARGS)

fuzz: $(COMPLETE)  ## Fuzz all that is read, SECONDS each; targets go in ARGS="events settings"
	$(BIN)/python -c "import atheris" 2>/dev/null || $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install) \
		--require-hashes --requirement tests/fuzz/requirements.txt
	cd tests && $(abspath $(BIN))/python -m fuzz.run --seconds $(SECONDS) $(ARGS)

check: $(COMPLETE)  ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(COMPLETE)  ## Build the documentation in build/site, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

ui: $(STAMP)  ## Open the asset graph, the runs and the checks in Dagster's UI, on loopback
	$(BIN)/calibration-pipeline ui $(ARGS)

report: $(STAMP)  ## Print the newest calibration report
	$(BIN)/calibration-pipeline report $(ARGS)

lock: $(COMPLETE)  ## Pin the newest versions of every dependency, with hashes, in the requirements
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.12 --upgrade \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
		--quiet --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra ui --extra editable --constraints requirements.lock --universal \
		--python-version 3.12 --upgrade --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --quiet --output-file requirements-run.lock
	$(BIN)/uv pip compile benchmarks/requirements.in --constraints requirements.lock --universal \
		--python-version 3.12 --upgrade --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --quiet --output-file benchmarks/requirements.lock

clean:  ## Remove the environment, the caches and what was built; results stay
	rm -rf $(VENV) .cache/compiled build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find calibration_pipeline assets tests -type d -name __pycache__ -prune -exec rm -rf {} +

# $(call environment,FOLDER,LOCKS): an environment of what the locks pin; $(call editable,FOLDER): the project in it
ifneq ($(UV),)
environment = $(UV) venv --allow-existing --python $(PYTHON) $(1) && \
	$(UV) pip install --python $(1)/bin/python --require-hashes $(addprefix --requirement ,$(2))
editable = $(UV) pip install --python $(1)/bin/python --no-deps --no-build-isolation --editable .
else
# Without a uv, that of the lock; and where it cannot reach what pip's settings say, pip.
environment = $(PYTHON) -m venv $(1) && \
	awk '/^uv==/ {found = 1} found {print} found && !/\\$$/ {exit}' requirements.lock > $(1)/uv.txt && \
	$(1)/bin/python -m pip install --quiet --require-hashes --requirement $(1)/uv.txt && \
	{ $(1)/bin/uv pip install --python $(1)/bin/python --require-hashes $(addprefix --requirement ,$(2)) || \
	$(1)/bin/python -m pip install --require-hashes $(addprefix --requirement ,$(2)); }
editable = $(1)/bin/python -m pip install --no-deps --no-build-isolation --editable .
endif
no_python = No Python 3.12 or newer was found. Install one, or name it: make PYTHON=/path/to/python3.13

$(STAMP): requirements-run.lock pyproject.toml
	$(if $(PYTHON),,$(error $(no_python)))
	$(call environment,$(VENV),requirements-run.lock)
	$(call editable,$(VENV))
	touch $(STAMP)

$(COMPLETE): $(STAMP) requirements.lock
	$(call environment,$(VENV),requirements.lock)
	touch $(COMPLETE)

$(BENCH)/.installed: requirements.lock benchmarks/requirements.lock
	$(if $(PYTHON),,$(error $(no_python)))
	$(call environment,$(BENCH),requirements.lock benchmarks/requirements.lock)
	$(call editable,$(BENCH))
	touch $(BENCH)/.installed
