# Everything here needs Python 3.11, a Rust toolchain, a C compiler and make; the rest is fetched by pip and cargo.
# `make help` lists the targets.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CARGO_JOBS ?= $(shell nproc)
export CARGO_BUILD_JOBS := $(CARGO_JOBS)

RUST_SOURCES := Cargo.toml Cargo.lock proto/devices.proto $(shell find ingest-core -name '*.rs' -not -path '*/fuzz/*' -o -name Cargo.toml -not -path '*/fuzz/*')
DATA_DIR ?= .hse
RUN_FLAGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the virtual environment and the extension ---

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group test --group dev
	$(BIN)/pip install --quiet --upgrade --target $(VENV)/thingsboard-sdk --group thingsboard
	touch $@

$(VENV)/extension: $(VENV)/installed $(RUST_SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --extras embedded
	$(BIN)/pip install --quiet --no-deps --group samples
	touch $@

.PHONY: dev
dev: $(VENV)/extension ## build the extension (release) into .venv

# --- using it ---

.PHONY: run
run: $(VENV)/extension ## start everything on this machine and replay real meter readings (DATA_DIR=, RUN_FLAGS=)
	@exec $(BIN)/hse up --data-dir $(DATA_DIR) $(RUN_FLAGS)

.PHONY: screenshot
screenshot: $(VENV)/extension ## run for half a minute and draw the live view into docs/live-view.svg
	$(BIN)/hse up --data-dir $(DATA_DIR) --ports auto --screenshot docs/live-view.svg --screenshot-after 30

.PHONY: doctor
doctor: $(VENV)/extension ## say what is missing or wrong, and how to mend it
	@$(BIN)/hse doctor --data-dir $(DATA_DIR)

# --- checking it ---

.PHONY: test
test: check test-rust test-python ## all checks and tests

.PHONY: check
check: $(VENV)/extension ## formatting, lints, types, layers, sizes, what the wheel holds
	cargo fmt --all --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest hse._ingest_core
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/checks
	$(BIN)/python -m tests.checks.wheel
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

.PHONY: test-rust
test-rust: ## the Rust tests
	cargo test --workspace --locked

.PHONY: test-python
test-python: $(VENV)/extension ## the Python tests: real PostgreSQL, real sockets, real processes
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 1 --dist loadfile --ignore tests/checks

.PHONY: crash
crash: $(VENV)/extension ## kill the core many more times, and at every system call, than `make test` does
	HSE_CRASH_KILLS=$${HSE_CRASH_KILLS:-1000} HSE_SYSCALL_DEATHS=all \
		$(BIN)/pytest --timeout 14400 -o faulthandler_timeout=0 tests/faults/test_core_killed.py tests/faults/test_syscalls.py

.PHONY: chaos
chaos: $(VENV)/extension ## kill and freeze everything in turn and together for longer, by a schedule of its own (HSE_CHAOS_SECONDS=, HSE_CHAOS_SEED=)
	HSE_CHAOS_SECONDS=$${HSE_CHAOS_SECONDS:-600} HSE_CHAOS_SEED=$${HSE_CHAOS_SEED:-$$(date +%s)} \
		$(BIN)/pytest -rP --timeout 14400 -o faulthandler_timeout=0 tests/faults/test_chaos.py

.PHONY: powercut
powercut: $(VENV)/extension ## cut the power under the journal's file system (root, nbdkit, libnbd-bin, fuse3)
	$(BIN)/python -m tests.faults.powercut --cuts $${CUTS:-100}

.PHONY: fuzz
fuzz: ## a bounded run of every fuzz target (nightly Rust, cargo-fuzz)
	@for target in $$(cd ingest-core && cargo +nightly fuzz list); do \
		(cd ingest-core && cargo +nightly fuzz run $$target -- -max_total_time=$${FUZZ_SECONDS:-60}) || exit 1; done

.PHONY: bench
bench: $(VENV)/extension ## the benches with their floors; results in benches/results
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m benches

# --- upkeep ---

.PHONY: format
format: $(VENV)/installed ## format Rust and Python
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: matrix
matrix: $(VENV)/extension ## write the table of permissions anew; read its diff before you commit it
	HSE_WRITE_MATRIX=1 $(BIN)/pytest -q tests/api/permissions

.PHONY: snapshots
snapshots: $(VENV)/installed ## write the interfaces' descriptions anew, to be reviewed as a diff
	$(BIN)/python -m tests.api.snapshots

.PHONY: proto
proto: $(VENV)/installed ## generate the Python side of proto/devices.proto anew
	$(BIN)/python -m tests.checks.stubs

.PHONY: clean
clean: ## remove the virtual environment and what was built; leaves data directories alone
	rm -rf $(VENV) target hse/_ingest_core*.so
