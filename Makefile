# The only commands anyone needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build run run-distributed test fmt fmt-check lint unit bench bench-long bench-distributed torture test-faults test-stories test-chart test-docker test-cluster cluster-up cluster-down chart-docs audit needs needs-test services services-down clean

TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: needs ## Build Fanfare and watch it deliver: server, receiver and events, nothing else needed
	@cargo build --release --locked -p fanfare --bin fanfare
	@exec $(TARGET_DIR)/release/fanfare serve --demo

run-distributed: needs-test build ## The same on Kafka and Cassandra, with two routers and two delivery workers
	@tests/run-distributed $(TARGET_DIR)/release

build: needs ## Build the release programs: target/release/fanfare and the two services
	@cargo build --release --locked -p fanfare

# Everything below shares one build: binaries, libraries and tests of the dev profile. The binary
# under test comes from the same build, with its crash points in.
test: needs-test fmt-check lint unit test-chart audit ## Everything that must pass: format, lints, all tests, licences

unit:
	@cargo build --locked --workspace --all-targets
	@FANFARE_BIN=$(abspath $(TARGET_DIR))/debug/fanfare tests/run

fmt: ## Format the code
	@cargo fmt --all

fmt-check:
	@cargo fmt --all --check

lint: needs ## Clippy, warnings are errors
	@cargo clippy --locked --workspace --all-targets -- -D warnings

bench: needs ## Measure (about 7 minutes, quiet machine); bench/RESULTS.md keeps the last table
	@cargo build --release --locked -p fanfare -p fanfare-bench
	@$(TARGET_DIR)/release/fanfare-bench

bench-long: needs ## Measure aging: 5M deliveries, then 5 minutes at half load
	@cargo build --release --locked -p fanfare -p fanfare-bench
	@$(TARGET_DIR)/release/fanfare-bench long

bench-distributed: needs-test ## Measure routers and workers on Kafka and Cassandra (some minutes, quiet machine); bench/RESULTS-DISTRIBUTED.md
	@cargo build --release --locked -p fanfare -p fanfare-bench
	@$(TARGET_DIR)/release/fanfare-bench distributed

torture: needs-test ## Kill the server 1,000 times under load and count what was lost (FANFARE_SEED=n repeats one)
	@cargo build --locked --workspace --all-targets
	@FANFARE_BIN=$(abspath $(TARGET_DIR))/debug/fanfare FANFARE_KILLS=$${FANFARE_KILLS:-1000} \
	  cargo test --locked -p fanfare-tests --test e2e -- --nocapture --exact faults::kill::random_kills_under_load

test-faults: needs-test ## Brokers, stores and groups in trouble under load: the tests that take minutes each
	@cargo build --locked --workspace --all-targets
	@FANFARE_BIN=$(abspath $(TARGET_DIR))/debug/fanfare \
	  cargo test --locked -p fanfare-tests --test distributed -- --nocapture --ignored

test-stories: needs-test ## The stories of make test, played by two routers and two workers on Kafka and Cassandra
	@cargo build --locked --workspace --all-targets
	@FANFARE_BIN=$(abspath $(TARGET_DIR))/debug/fanfare tests/stories-on-services

test-docker: needs-test ## The image and compose.yaml on a real Docker engine, through crashes (the first time half an hour on two busy cores, then minutes)
	@.ci/needs docker
	@cargo run --quiet --locked -p fanfare-test-services --bin fanfare-services -- fetch
	@tests/docker/run

test-chart: needs-test ## The Helm chart: linted, rendered, judged by Kubernetes' schemas and by the binary
	@[ -n "$${FANFARE_BIN:-}" ] || [ -x $(TARGET_DIR)/debug/fanfare ] || cargo build --locked -p fanfare --bins
	@FANFARE_BIN=$${FANFARE_BIN:-$(abspath $(TARGET_DIR))/debug/fanfare} tests/chart/run

test-cluster: needs-test ## The chart on a real Kubernetes (KUBECONFIG's, else one of its own): upgraded, killed, drained under load (ARGS go to pytest)
	@[ -n "$${FANFARE_BIN:-}" ] || [ -x $(TARGET_DIR)/debug/fanfare ] || cargo build --locked -p fanfare --bins
	@FANFARE_BIN=$${FANFARE_BIN:-$(abspath $(TARGET_DIR))/debug/fanfare} tests/cluster/run $(ARGS)

cluster-up: needs-test ## A Kubernetes cluster on this machine with the chart installed, until cluster-down
	@tests/cluster/person

cluster-down: ## End it and remove its files
	@tests/cluster/down

chart-docs: ## Write the chart's README and schema from what they are made of, the comments of values.yaml
	@helm/document

services: needs-test ## Start a Kafka broker and a Cassandra node for many test runs, until services-down
	@cargo run --quiet --locked -p fanfare-test-services --bin fanfare-services -- up

services-down: ## End them and remove their files
	@cargo run --quiet --locked -p fanfare-test-services --bin fanfare-services -- down

audit: ## Known vulnerabilities in dependencies, where the advisory database can be had
	@.ci/audit

needs:
	@.ci/needs build

needs-test:
	@.ci/needs test

clean: ## Remove everything that was built or fetched
	@cargo clean
	@rm -rf .cache
