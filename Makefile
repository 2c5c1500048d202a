# make demo    install the package alone (no PyTorch) into build/demo and read the example images
# make test    install it with the test tools into .venv and run the tests;  ARGS="-k ctc" goes to pytest
# make browser use the page of `crnn serve` in a real Chromium (needs playwright and one), screenshots in build/browser
# make protos  the descriptors that `crnn serve` speaks by, from src/crnn/serve/protos
# make check   formatting, lint, types, tests
# make clean   remove what the above made
PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
ARGS ?=
INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt $(shell find src -type f -not -name '*.pyc')

.PHONY: demo test check lint browser protos clean
.DELETE_ON_ERROR:

demo: $(DEMO)/.installed
	$(DEMO)/bin/crnn read examples/test_01.jpg examples/test_02.jpg examples/test_03.jpg

# A process a file, two at a time: TensorFlow, OpenVINO, PyTorch, Ray and gRPC in one process, which then forks, crash now
# and then. In reverse, for the longest are not among the first. No test of a file is selected (status 5): that is for
# -k to say. Looking for plugins of pytest among all packages would take longer than most files; none is needed.
test: $(VENV)/.installed
	@ls -r tests/test_*.py | OMP_NUM_THREADS=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 xargs -P 2 -I FILE sh -c \
	    'out=$$($(VENV)/bin/python -m pytest -q $(ARGS) FILE 2>&1); status=$$?; [ $$status = 5 ] && exit 0; \
	    echo "FILE: $$out"; [ $$status = 0 ] || { echo "FILE: failed ($$status)" >&2; exit 1; }'

browser: $(VENV)/.installed
	$(VENV)/bin/python $(INSTALL) playwright
	$(VENV)/bin/python tests/browser/drive.py

protos: $(VENV)/.installed
	cd src/crnn/serve/protos && $(abspath $(VENV))/bin/python -m grpc_tools.protoc -I. --include_imports \
	    --descriptor_set_out=services.binpb inference.proto tensorflow.proto tensorflow_error.proto tensorflow_serving.proto

lint: $(VENV)/.installed
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

check: lint test

clean:
	rm -rf build $(VENV)/.installed
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# The demo installs a copy, as a user's pip does, so every change of the sources installs again.
$(DEMO)/.installed: $(SOURCES) | $(DEMO)/bin/python
	$(DEMO)/bin/python $(INSTALL) .
	touch $@

# The tests run on the sources in place: only a change of the requirements installs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python $(INSTALL) --editable '.[dev]'
	# Real clients of the server, for its tests. They ask for older libraries than these pins and work with them.
	$(VENV)/bin/python $(INSTALL) --no-deps tensorflow-serving-api tritonclient
	touch $@

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "crnn needs Python 3.11 or newer: install it, or name one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	    { echo "this Python cannot make environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $*
