# Everything runs in virtual environments made here, from the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= build/test-venv
# passed on to training by `make demo`, to pytest by `make test`
ARGS ?=

# a developer's environment must not reach the new one; pip's configuration (mirrors, certificates) stays
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS VIRTUAL_ENV CONDA_PREFIX PYTEST_ADDOPTS PYTEST_PLUGINS
unexport PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV
export PYTHONNOUSERSITE := 1
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# a run directory is never written twice; ARGS may name another
DEMO_OUT = $(if $(findstring --out,$(ARGS)),,--out runs/demo-$(shell date +%Y%m%d-%H%M%S))

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean check-python

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) TEST_VENV=$(TEST_VENV) ARGS="$(ARGS)"'

check-python:
	@command -v "$(PYTHON)" > /dev/null || { echo "$(PYTHON) was not found; name a Python >= 3.10: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is older than Python 3.10 or does not start; name another: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "$(PYTHON) has no venv module with pip; install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

comma := ,

# $(1): environment, $(2): extras; setuptools first, so that the build uses the pinned one and downloads no other
define install
	@echo "installing into $(1); torch and triton are large, this takes minutes"
	"$(PYTHON)" -m venv "$(1)"
	"$(1)/bin/python" $(PIP_INSTALL) setuptools
	"$(1)/bin/python" $(PIP_INSTALL) --no-build-isolation --editable ".$(2)"
	touch "$(1)/installed"
endef

$(VENV)/installed: setup.py pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory check-python
	$(call install,$(VENV),)

demo: $(VENV)/installed  ## install into VENV, train on the embedded data and print the result
	"$(VENV)/bin/python" -m pps_fast.train $(DEMO_OUT) $(ARGS)

test: check-python  ## install into a fresh TEST_VENV and run the whole test suite there
	rm -rf "$(TEST_VENV)"
	$(call install,$(TEST_VENV),[test$(comma)plot$(comma)track])
# one thread: the tests' tensors are small, and torch's waiting threads starve on a machine that is busy otherwise
	OMP_NUM_THREADS=1 "$(TEST_VENV)/bin/python" -m pytest $(ARGS)

lint: $(VENV)/installed  ## check style and format with ruff
	"$(VENV)/bin/python" $(PIP_INSTALL) ruff
	"$(VENV)/bin/python" -m ruff check .
	"$(VENV)/bin/python" -m ruff format --check .

clean:  ## delete environments, builds and caches; runs/ stays
	rm -rf "$(VENV)" "$(TEST_VENV)" build dist pps_fast.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find pps_fast kernels benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
