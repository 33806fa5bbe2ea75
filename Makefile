# Everything runs in virtual environments made here, from the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= build/test-venv
RELEASE_VENV ?= build/release-venv
# passed on to training by `make demo`, to its script by `make demo-video`, to pytest by `make check`, `make test` and `make test-all`
ARGS ?=

# a developer's environment must not reach the new one; pip's configuration (mirrors, certificates) stays
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS VIRTUAL_ENV CONDA_PREFIX PYTEST_ADDOPTS PYTEST_PLUGINS
# without kept bytecode every worker of pytest and every process that a test starts would compile all files again
unexport PYTHONDONTWRITEBYTECODE
unexport PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV
export PYTHONNOUSERSITE := 1
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# a run directory is never written twice; ARGS may name another
NAMED_OUT := $(shell printf '%s\n' $(ARGS) | sed -n -e 's/^--out=//p' -e '/^--out$$/{n;p;}' | tail -n 1)
DEMO_RUN := $(or $(NAMED_OUT),runs/demo-$(shell date +%Y%m%d-%H%M%S))
DEMO_OUT = $(if $(NAMED_OUT),,--out "$(DEMO_RUN)")

.DEFAULT_GOAL := help
.PHONY: help demo demo-video check test test-all ci lint release clean check-python

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) TEST_VENV=$(TEST_VENV) ARGS="$(ARGS)"'

check-python:
	@command -v "$(PYTHON)" > /dev/null || { echo "$(PYTHON) was not found; name a Python >= 3.10: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is older than Python 3.10 or does not start; name another: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "$(PYTHON) has no venv module with pip; install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

comma := ,
# what others import: types are complete here
PUBLIC = pps_fast/__init__.py pps_fast/pipeline.py pps_fast/config.py pps_fast/config_tree.py pps_fast/presets.py

# $(1): environment, $(2): extras; setuptools first, so that the build uses the pinned one and downloads no other
define install
	@echo "installing into $(1); torch and triton are large, this takes minutes"
	"$(PYTHON)" -m venv "$(1)"
	"$(1)/bin/python" $(PIP_INSTALL) setuptools
	"$(1)/bin/python" $(PIP_INSTALL) --no-build-isolation --editable ".$(2)"
	touch "$(1)/installed"
endef

# $(1): environment, $(2): options of pytest. One thread each: the tests' tensors are small, and torch's waiting threads
# starve on a machine that is busy otherwise
define pytest
	OMP_NUM_THREADS=1 "$(1)/bin/python" -m pytest --numprocesses auto --dist worksteal $(2) $(ARGS)
endef

define style
	"$(1)/bin/python" -m ruff check .
	"$(1)/bin/python" -m ruff format --check .
	"$(1)/bin/python" -m mypy
	"$(1)/bin/python" -m mypy --strict --follow-imports=silent $(PUBLIC)
endef

$(VENV)/installed: setup.py pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory check-python
	$(call install,$(VENV),)

$(VENV)/installed-video: setup.py pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory check-python
	$(call install,$(VENV),[video])
	touch "$@"

$(VENV)/installed-dev: setup.py pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory check-python
	$(call install,$(VENV),[dev$(comma)plot$(comma)track$(comma)cluster$(comma)video])
	touch "$@"

.PHONY: $(TEST_VENV)/fresh
$(TEST_VENV)/fresh: check-python
	rm -rf "$(TEST_VENV)"
	$(call install,$(TEST_VENV),[dev$(comma)plot$(comma)track$(comma)cluster$(comma)video])

demo: $(VENV)/installed  ## install into VENV, train on the embedded data and print the result
	"$(VENV)/bin/python" -m pps_fast.train $(DEMO_OUT) $(ARGS)
	@echo
	@echo 'Next:'
	@echo '  source $(VENV)/bin/activate'
	@echo '  python -m pps_fast.eval --model $(DEMO_RUN)           # evaluate it again'
	@echo '  pip install -c constraints.txt -e ".[plot]"'
	@echo '  python -m pps_fast.draw timeline --model $(DEMO_RUN)  # one query as a picture: $(DEMO_RUN)/timeline.png'
	@echo 'The table is in $(DEMO_RUN)/evaluation_test.md, the losses in $(DEMO_RUN)/metrics.jsonl.'
	@echo 'Your own data, step by step: docs/your_data.md'

demo-video: $(VENV)/installed-video  ## draw small videos, encode them, fit a model to pairs without times, and ask it
	"$(VENV)/bin/python" docs/demo_video.py $(ARGS)

test: $(TEST_VENV)/fresh  ## install into a fresh TEST_VENV and run the whole test suite there
	$(call pytest,$(TEST_VENV),--strict-skips)

test-all: $(TEST_VENV)/fresh  ## the same, and every kernel compiled ahead of time for every GPU architecture
	$(call pytest,$(TEST_VENV),--strict-skips --aot-all)

check: $(VENV)/installed-dev  ## style, types and the fast tests, in VENV
	$(call style,$(VENV))
	$(call pytest,$(VENV),-m "not slow")

lint: $(VENV)/installed-dev  ## style, format and types alone
	$(call style,$(VENV))

ci: $(TEST_VENV)/fresh  ## what a change has to pass: style, types and the whole suite, in a fresh TEST_VENV
	$(call style,$(TEST_VENV))
	$(call pytest,$(TEST_VENV),--strict-skips)

release: check-python  ## build wheel and sdist into dist/ and try each in a fresh RELEASE_VENV, outside the checkout
	rm -rf "$(RELEASE_VENV)"
	"$(PYTHON)" -m venv "$(RELEASE_VENV)"
# what builds: the version that is pinned
	"$(RELEASE_VENV)/bin/python" $(PIP_INSTALL) setuptools
	"$(RELEASE_VENV)/bin/python" docs/release.py "$(RELEASE_VENV)"

clean:  ## delete environments, builds and caches; runs/ stays
	rm -rf "$(VENV)" "$(TEST_VENV)" "$(RELEASE_VENV)" build dist pps_fast.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find pps_fast kernels benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
