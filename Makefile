# Two commands are all the set-up there is: `make demo` and `make test`. Both make their own .venv.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first interpreter on PATH that is new enough; PYTHON=… overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
DEV_LOCK := requirements-dev.txt

.PHONY: help demo cluster-demo test check format dist lock bench soak sdk-check live-check clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer on PATH"; echo "hint: install one, or say PYTHON=/path/to/python3.11 make demo"; exit 1; } >&2
	@"$(PYTHON)" -m venv $(VENV) || { echo "error: this Python cannot make a virtual environment"; echo "hint: on Debian and Ubuntu: apt install python3-venv"; exit 1; } >&2

$(STAMP): pyproject.toml $(BIN)/python
	@echo "installing gremlins into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV_STAMP): $(STAMP) $(DEV_LOCK)
	@echo "installing the test tools into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(DEV_LOCK)
	@touch $@

lock: $(STAMP) ## the versions and hashes of the test tools, anew
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --group dev --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --upgrade --output-file $(DEV_LOCK)

demo: $(STAMP) ## a whole pipeline in batch mode against the built-in simulator, no key needed
	@$(BIN)/gremlins demo

cluster-demo: $(DEV_STAMP) ## two hosts, one of which is killed; needs PostgreSQL, no key
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cluster]'
	@$(BIN)/python -m bench.cluster_demo

# Thousands of small repositories are made and thrown away: in memory, where there is room for them.
SHM := $(shell test -w /dev/shm && df -Pk /dev/shm | awk 'NR == 2 && $$4 > 2000000 { print "/dev/shm" }')
SCRATCH := TMPDIR=$(or $(SHM),$(TMPDIR),/tmp) PYTHONDONTWRITEBYTECODE=
# A thousand interpreters start: none of them compiles the source.
COMPILE := $(BIN)/python -m compileall -q gremlins tests
KEEP := -o tmp_path_retention_policy=failed

test: $(DEV_STAMP) ## the test suite
	@$(COMPILE)
	@$(SCRATCH) $(BIN)/python -m pytest -n 4 --dist worksteal $(KEEP)

check: $(DEV_STAMP) ## format, lint, strict types, known faults of dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pip-audit --path $(VENV)/lib/python*/site-packages --skip-editable --progress-spinner off --timeout 5 > $(VENV)/audit 2>&1 \
		|| { ! grep -q "^Found" $(VENV)/audit || { cat $(VENV)/audit; exit 1; }; echo "no audit of the dependencies: the service does not answer"; }

dist: $(DEV_STAMP) ## wheel, source archive, and the list of what an installation holds (SBOM)
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@"$(PYTHON)" -m venv --clear build/installed
	@build/installed/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@build/installed/bin/python -m pip uninstall --quiet --yes pip setuptools
	@$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/sbom.json build/installed/bin/python

format: $(DEV_STAMP) ## rewrite the source in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(DEV_STAMP) ## speed and memory, as ratios in one run
	@$(BIN)/python -m bench

soak: $(DEV_STAMP) ## the fault schedules of the suite, at least 10,000 of them
	@$(SCRATCH) GREMLINS_SOAK=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(KEEP) -m "" tests -k soak

sdk-check: $(DEV_STAMP) ## the SDK's own batch tests against the simulator
	@$(BIN)/python tests/simulator/sdk_check.py

# Half a gigabyte of other people's binaries: kept outside the repository, and outside .venv.
LIVE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gremlins-live
LIVE_PACKAGES := @anthropic-ai/claude-code @github/copilot @kilocode/cli@7.7.7

live-check: $(DEV_STAMP) ## the providers against their real binaries, which it installs
	@mkdir -p "$(LIVE)"
	@command -v npm > /dev/null || { echo "error: no npm on PATH"; echo "hint: install Node.js 20 or newer"; exit 1; } >&2
	@npm install --prefix "$(LIVE)" --no-audit --no-fund --loglevel=error $(LIVE_PACKAGES)
	@test -x "$(LIVE)/venv/bin/python" || "$(BIN)/python" -m venv "$(LIVE)/venv"
	@"$(LIVE)/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement $(DEV_LOCK)
	@"$(LIVE)/venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[openai,mcp]'
	@LIVE_BINARIES="$(LIVE)/node_modules/.bin" "$(LIVE)/venv/bin/python" -m pytest -m "" tests/live tests/clients/providers/test_openai.py tests/clients/test_conformance.py

clean: ## remove what the targets above have made
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
