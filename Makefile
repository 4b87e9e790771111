# `make run` and `make test` need only python3, pip, make and git: the first call builds .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev-ready

N ?= 300
SEED ?= 0
VERSION ?= 1.39.0
FLOWER := .venv-flower-$(VERSION)

.PHONY: run test test-quick test-slow test-flower test-mutations fuzz check format bench docs wheel clean

run: $(READY)  ## FedAvg against SCAFFOLD on non-IID digits, in under a minute
	$(BIN)/fedopt study

test: $(DEV)  ## everything but what takes minutes; real servers and clients on loopback among it
	$(BIN)/python -m pytest -n auto --dist worksteal -q -m "not slow"

test-quick: $(DEV)  ## the same without servers and clients
	$(BIN)/python -m pytest -n auto -q -m "not slow and not deployment"

test-slow: $(DEV)  ## what takes minutes: MNIST, CIFAR-10, ResNet-18, 1,000 clients; prints its figures
	$(BIN)/python -m pytest -n 2 -q -rP -m slow

test-flower: $(FLOWER)/.ready  ## the deployment tests with another Flower: VERSION=1.39.0
	PYTHONPATH="$(CURDIR)" $(FLOWER)/bin/python -m pytest -n auto --dist worksteal -q -m "not slow" \
		tests/server tests/clients/deployed tests/fedopt/flower
	PYTHONPATH="$(CURDIR)" $(FLOWER)/bin/python -m pytest -n auto --dist worksteal -q -m "deployment and not slow" tests \
		--ignore tests/server --ignore tests/clients/deployed

test-mutations: $(DEV)  ## single-line errors in a copy of the code, one by one: does test-quick notice? ONLY=pattern JOBS=n
	$(BIN)/python -m tests.mutations $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS))

fuzz: $(DEV)  ## N random experiments (300) against an independent reference, and over lanes, workers, ranks, processes
	$(BIN)/python -m tests.fuzz --cases $(N) --seed $(SEED)

check: $(DEV)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)  ## this engine against the plain loop, interleaved; a federation beside Flower's own
	$(BIN)/fedopt bench engine
	$(BIN)/fedopt bench federation --stock 4

docs: $(DEV)  ## site/: the documentation, with its reference pages generated anew
	$(BIN)/python -m tests.docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html, or with its search: $(BIN)/python -m http.server --directory site"

wheel: $(DEV)  ## dist/: the source distribution and the wheel
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .venv-flower-* build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# What `make run` needs: fedopt and its dependencies, not the tools and optional packages that the tests use.
# A python3 without ensurepip (Debian without python3-venv) still gets its environment: pip installs into it.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "fedopt needs Python 3.11 or newer; point PYTHON at one: make run PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV); }
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable .
	@touch $@

$(DEV): $(READY)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --editable '.[dev]'
	@touch $@

# Flower of that version with its own dependencies; torch and the rest are borrowed from the first environment.
$(FLOWER)/.ready: $(DEV)
	@test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER) 2>/dev/null \
		|| { rm -rf $(FLOWER); $(PYTHON) -m venv --without-pip $(FLOWER); }
	$(PYTHON) -m pip --python $(FLOWER)/bin/python install --quiet 'flwr[simulation]==$(VERSION)'
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(FLOWER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-borrowed.pth"
	@touch $@
