# bo-sweep: `make quickstart` sets up and draws a first phase diagram; `make test` sets up and tests.

PYTHON ?= $(shell for v in python3.13 python3.12 python3.11 python3 python; do \
	$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$v; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := g++ pkg-config libopencv-dev libturbojpeg0-dev libgl1
PYTHON_PACKAGES = $(shell $(PYTHON) -c $(HAS_HEADERS) 2>/dev/null || $(PYTHON) -c \
	'import sys; print("python{0}.{1}-dev python{0}.{1}-venv".format(*sys.version_info))')
HAS_HEADERS := 'import ensurepip, os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
INSTALLED := $(VENV)/.installed

# Where it is set, each of the many processes of a launch compiles what it imports: 2.4 times the processor time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart install system browser test test-fast test-cluster lint format bench bench-packs bench-gpu chaos image manifests lock clean

quickstart: $(INSTALLED)  ## set up, then launch digits-grid: minutes on two CPU cores
	$(BIN)/bo-sweep launch digits-grid

install: $(INSTALLED)  ## everything that bo-sweep needs, in .venv

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "bo-sweep needs Python 3.11 to 3.13; none is on the PATH. Try: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(MAKE) --no-print-directory system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib || true  # as pip does, on all cores; a few files are not for this Python
	@touch $@

system:  ## what FFCV compiles against (Debian and Ubuntu)
	@command -v g++ >/dev/null && pkg-config --exists opencv4 libturbojpeg 2>/dev/null \
		&& /sbin/ldconfig -p | grep -q libGL.so.1 && $(PYTHON) -c $(HAS_HEADERS) 2>/dev/null \
		|| $(MAKE) --no-print-directory system-install

.PHONY: system-install
system-install:
	@command -v apt-get >/dev/null || { echo "Install a C++ compiler, pkg-config, and the development files of OpenCV 4 and libturbojpeg, then run make again."; exit 1; }
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) $(PYTHON_PACKAGES)

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

BROWSERS := chromium chromium-browser google-chrome

browser:  ## Chromium for the tests of the report (Debian and Ubuntu); they are skipped where there is none
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null || exit 0; \
	$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends chromium || echo "No browser was installed: the tests of the report's page are skipped."

SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) browser  ## all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: $(INSTALLED)  ## all tests but those over 20 seconds
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not chaos"

test-cluster: $(INSTALLED)  ## submit to a real API server with KubeRay's definitions: make test-cluster KUBECONFIG=~/.kube/config
	BO_SWEEP_TEST_KUBECONFIG="$(abspath $(KUBECONFIG))" $(BIN)/python -m pytest -rs tests/test_real_cluster.py

lint: $(INSTALLED)  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy k8s/write_manifests.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## every claim about speed, measured here
	$(BIN)/python -m benchmarks

bench-packs: $(INSTALLED)  ## what packs, caches and loaders gain, on two CPU cores; ARGS="--json figures.json" keeps the figures
	$(BIN)/python -m benchmarks packs pack_widths cold_start cifar_loading loading $(ARGS)

bench-gpu: $(INSTALLED)  ## check and measure the GPU of this machine; ARGS="--out table.md" keeps the table
	$(BIN)/python -m benchmarks.gpu $(ARGS)

chaos: $(INSTALLED)  ## kill, starve and damage a digits sweep 50 times: nothing may be lost (about an hour)
	$(BIN)/python -m pytest -m chaos
	$(BIN)/python -m tests.chaos --rounds 50

image:  ## the image for Kubernetes, by docker, podman or buildah; PUSH=1 IMAGE=registry.example.org/bo-sweep pushes it
	@k8s/build.sh

manifests: $(INSTALLED)  ## k8s/ as bo-sweep k8s render makes it now
	$(BIN)/python k8s/write_manifests.py

lock:  ## resolve requirements.lock again, for all supported Pythons (needs uv)
	uv pip compile --quiet --universal --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
