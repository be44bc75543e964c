# make bench   measures the shipped network on this machine     make test   runs every test
# Each makes its own virtual environment first and leaves it alone while pyproject.toml and constraints.txt stay as they are.

ifndef PYTHON
PYTHON := $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
endif
VENV ?= .venv
TEST_VENV ?= .venv-test
ARGS ?=
WORKERS ?= 2
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: bench test lint wheel clean clean-env help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo "Variables: PYTHON=python3.11 picks the interpreter, WORKERS=4 runs four tests at a time, ARGS='--runtime openvino' is handed on to bench or pytest"

bench: $(VENV)/.installed ## Measure the shipped network here (base dependencies, no torch)
	$(VENV)/bin/python -m inas_deploy.bench $(ARGS)

test: $(TEST_VENV)/.installed ## Run the tests (brings torch, OpenVINO and LiteRT)
	$(TEST_VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(TEST_VENV)/.installed ## Style, types and the direction of imports
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy
	$(TEST_VENV)/bin/lint-imports

wheel: $(TEST_VENV)/.installed ## Build dist/*.whl
	rm -rf build dist
	$(TEST_VENV)/bin/python -m pip wheel --no-deps --wheel-dir dist .

clean: ## Remove what was built, keep the environments
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

clean-env: ## Remove both environments
	rm -rf $(VENV) $(TEST_VENV)

# $(call environment,FOLDER,WHAT TO INSTALL)
define environment
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: '$(PYTHON)' is not Python 3.11 or 3.12; name one that is, for example: make $(MAKECMDGOALS) PYTHON=/usr/bin/python3.11" >&2; exit 2; }
	@echo "Making $(1) with $(PYTHON)"
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -c constraints.txt -e '$(2)'
	@touch $(1)/.installed
endef

$(VENV)/.installed: $(SOURCES)
	$(call environment,$(VENV),.)

$(TEST_VENV)/.installed: $(SOURCES)
	$(call environment,$(TEST_VENV),.[test])
