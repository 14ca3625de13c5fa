# The few commands that people type. Each installs what it needs first, and says so only when something is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run test conformance scale bench perf compare guard choices ceilings setup

CONFIG ?=
BENCH ?=
PERF ?=
SCALE ?=
TRACES ?= dataplane/ipvs/golden
NEXTEST_PROFILE ?= default

# Namespaces, taps and hugepages belong to root: tests and the appliance run as root, building does not.
ifneq ($(shell id -u),0)
SUDO := sudo -E
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E
endif

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install what building and testing need, and nothing else
	@.ci/setup build demo test guard bench

demo: ## watch 100 requests pass from a client through the appliance to two nginx servers
	@.ci/setup build demo
	@cargo build --release --locked --package sluice-control
	@$(SUDO) configs/demo.sh

run: ## run the appliance in the foreground: make run CONFIG=configs/bare-metal.toml
	@test -n "$(CONFIG)" || { echo 'say which boot file: make run CONFIG=configs/bare-metal.toml' >&2; exit 2; }
	@.ci/setup build
	@cargo build --release --locked --package sluice-control
	@exec $(SUDO) target/release/sluiced --config "$(CONFIG)"

test: ## format, lints, build, every test, documentation: what CI runs
	@.ci/setup build demo test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo build --workspace --locked
	cargo nextest run --workspace --locked --profile $(NEXTEST_PROFILE)
	cargo test --workspace --locked --doc
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --locked --no-deps
	@$(MAKE) --no-print-directory guard

guard: ## count the walk's instructions a packet and hold them against perf/ceilings.toml
	@.ci/setup build guard
	@cargo build --quiet --release --locked --package sluice-perf --bin guard --bin walk_count
	@target/release/guard

choices: ## nanoseconds that a choice of each scheduler costs, with 10 and with 1,000 real servers
	@.ci/setup build guard
	@cargo run --quiet --release --locked --package sluice-perf --bin choice

ceilings: ## write the walk's instructions a packet to perf/ceilings.toml: commit it with what changed them
	@.ci/setup build guard
	@cargo build --quiet --release --locked --package sluice-perf --bin guard --bin walk_count
	@target/release/guard --write

conformance: ## replay recorded kernel traces through sluice: make conformance [TRACES=DIR]
	@.ci/setup build
	@cargo run --quiet --locked --package sluice-conformance -- --traces "$(TRACES)"

scale: ## many workers on NICs in process, every packet looked at: make scale [SCALE='--models full --workers 3 --connections 1000']
	@.ci/setup build guard
	@cargo run --quiet --release --locked --package sluice-perf --bin scale -- $(SCALE)

bench: ## measure the appliance beside testpmd, new connections, memory: make bench [BENCH='--rounds 1 --flows 1000']
	@.ci/setup build bench
	@cargo build --release --locked --package sluice-control --bin sluiced --package sluice-perf --bin bench
	@$(SUDO) target/release/bench --results perf/results $(BENCH)

perf: ## make bench and all else that is measured, over an hour: make perf [PERF='--only sizes,latency --rounds 3']
	@.ci/setup build bench
	@cargo build --release --locked --package sluice-control --bin sluiced --package sluice-perf --bin bench --bin sluice-pktgen
	@$(SUDO) target/release/bench --whole --results perf/results $(PERF)

compare: ## what changed between two results: make compare [BEFORE=A.json AFTER=B.json], the latest two of make bench if not given
	@.ci/setup build
	@perf/compare $(or $(BEFORE),$(shell ls perf/results/*-bench.json | tail -n 2 | head -n 1)) $(or $(AFTER),$(shell ls perf/results/*-bench.json | tail -n 1))
