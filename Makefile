# `make build` makes the virtual environment and the native core; everything else rests on it.
# Nothing here needs root or Docker. PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --disable-pip-version-check -q
RUST_SOURCES := $(shell find gateway -name '*.rs' -not -path '*/fuzz/*' -not -path '*/tests/*' -not -path '*/benches/*' 2>/dev/null) Cargo.toml Cargo.lock $(wildcard gateway/*/Cargo.toml)
TEST_CRATES := tests/bench/load tests/conformance/hyper
FUZZ_CRATES := $(wildcard gateway/*/fuzz)
# AGAIN=1 runs once more what failed, as .ci/run does.
AGAIN ?=
PYTEST := $(BIN)/python -m $(if $(AGAIN),tests.again,pytest)
# What takes minutes has a target of its own; what the project promises is part of `make test` all the same.
SLOW := tests/abuse tests/browser tests/conformance tests/e2e tests/kubernetes
PROMISE := tests/e2e/test_drain.py tests/e2e/test_failover.py
KUBERNETES := $(BIN)/python -m tests.kubernetes $(if $(AGAIN),--again)
LAB_FLAGS ?=
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help build browser lab lab-down test test-rust test-unit test-integration test-e2e test-kubernetes lint format check bench conformance abuse fuzz crds docs kind-up kind-down kind-demo lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(VENV)/.built ## Make .venv with all dependencies, build the native core, install fedctl

$(VENV)/.venv-made:
	@command -v cargo >/dev/null || { echo "make: no Rust toolchain found: install one (rustup, or your distribution's cargo >= 1.88), then run make again" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11: run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.venv-made pyproject.toml constraints.txt $(RUST_SOURCES)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt maturin
	VIRTUAL_ENV=$(abspath $(VENV)) PIP_CONSTRAINT=$(abspath constraints.txt) \
		$(BIN)/maturin develop --release --locked -q --extras lab,dev
	@touch $@

lab: build ## Start the lab (two regions on this machine) and show it live
	$(BIN)/fedctl lab up $(LAB_FLAGS)

lab-down: build ## Stop the lab
	$(BIN)/fedctl lab down

browser: ## Install a chromium for the browser tests where that is allowed (root on Debian); else say how
	@for name in chromium chromium-browser google-chrome-stable google-chrome; do command -v $$name >/dev/null && exit 0; done; \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install -y -qq --no-install-recommends chromium && exit 0; \
		echo "make: no chromium, so the browser tests of the console are skipped; to run them: apt-get install chromium (as root)"

test: build ## Rust, unit, property and integration tests, drain and failover in the lab, the quick ones on Kubernetes
	cargo test --locked --workspace --exclude gateway-binding -q
	$(PYTEST) -q $(SLOW:%=--ignore=%)
	$(PYTEST) -q $(PROMISE)
	$(KUBERNETES) --only quick

test-rust: ## Tests of the native crates
	cargo test --locked --workspace --exclude gateway-binding -q

test-unit: build ## Tests without I/O
	$(PYTEST) -q tests/unit tests/property tests/golden tests/simulation

test-integration: build ## Tests with the real parts, one or two at a time
	$(PYTEST) -q tests/contract tests/native tests/integration

test-e2e: build browser ## Tests against the whole lab, then the console in a real browser (~15 min)
	$(PYTEST) -q tests/e2e
	$(PYTEST) -q tests/browser

test-kubernetes: build ## Tests with real Kubernetes API servers, built once from Go modules (minutes)
	$(KUBERNETES)

lint: build ## ruff, mypy, import-linter, stubtest, cargo fmt, clippy, cargo-deny
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mypy.stubtest gateway._native
	cargo fmt --all --check
	for crate in $(TEST_CRATES); do cargo fmt --manifest-path $$crate/Cargo.toml --check || exit 1; done
	cargo clippy --locked --workspace --all-targets -q -- -D warnings
	$(BIN)/cargo-deny --locked -L error check bans licenses sources
	for crate in $(FUZZ_CRATES); do cargo check --manifest-path $$crate/Cargo.toml --target-dir target/fuzz -q || exit 1; done

format: build ## Format Python and Rust
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all
	for crate in $(TEST_CRATES); do cargo fmt --manifest-path $$crate/Cargo.toml || exit 1; done

check: lint test ## What CI runs

bench: build ## Side-by-side figures against nghttpx, Envoy and HAProxy, and propagation through the lab (~15 min)
	$(BIN)/python -m tests.bench

conformance: build ## The Gateway API's suite, h2spec, gRPC interop, everyday clients; renews docs/conformance.md (wants Go)
	$(BIN)/python -m tests.conformance.gateway_api
	$(BIN)/python -m tests.conformance
	$(PYTEST) -q tests/conformance

abuse: build ## Attacks on a gateway while another client measures its calls (renews docs/abuse.md), and what it holds
	$(BIN)/python -m tests.abuse
	$(PYTEST) -q -s tests/abuse/test_holding.py

fuzz: build ## Every fuzz target for FUZZ_SECONDS (60); an input that breaks one is written below target/fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

crds: build ## Renew crds/ from the models
	$(BIN)/fedctl crds --directory crds

kind-up: build ## Two kind clusters with everything in them (wants Docker, kind and kubectl; without: make lab)
	$(BIN)/fedctl kind up

kind-demo: build ## In them: one name over both regions, then drain one with calls running, and say what happened
	$(BIN)/fedctl kind demo

kind-down: build ## Remove them
	$(BIN)/fedctl kind down

docs: build ## Renew what is made: docs/metrics.md, docs/fedctl.md, Prometheus' rules, Grafana's dashboards
	$(BIN)/python -m tests.docs
	$(BIN)/python -m federation.cli.reference > docs/fedctl.md.new && mv docs/fedctl.md.new docs/fedctl.md

lock: ## Renew constraints.txt and Cargo.lock from what is installed now
	@(echo "# Exact versions for \`make build\`: the runtime, the lab and the development tools. Renew with \`make lock\`."; \
		$(BIN)/pip freeze --exclude-editable | grep -viE '^(grpc-federation|pip|setuptools)|@') > constraints.txt
	cargo update

clean: ## Remove build results
	rm -rf $(VENV) target dist
