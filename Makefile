# Run "make" for the list of targets. Anything longer than a line lives in internal/toolbox.

SHELL       := /bin/bash
TOOLBOX     := go run ./internal/toolbox
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PACKAGES    ?= ./...
TESTTIMEOUT ?= 40m
MAJORS      ?= 13 14 15 16 17 18
FUZZTIME    ?= 30s
CI_FUZZTIME ?= 3000x
CI_CHANGES  ?= 20000
CHAOS       := DBMAZZ_CHAOS_N=$(or $(N),$(if $(SEED),1,50)) DBMAZZ_CHAOS_SEED=$(or $(SEED),1) DBMAZZ_CHAOS_REPORT=$(REPORT) DBMAZZ_CHAOS_LOGS=$(LOGS)
DEMOFLAGS   := $(if $(CHANGES),--changes=$(CHANGES)) $(if $(DIR),--dir=$(DIR)) $(if $(KEEP),--keep) \
               $(if $(SEED),--seed=$(SEED)) $(if $(KILL),--kill=$(KILL)) $(if $(SINK_DOWN),--sink-down=$(SINK_DOWN)) $(if $(HARD),--hard) $(ARGS)

BENCHFLAGS  ?= $(if $(FULL),-full) $(if $(PARTS),-parts=$(PARTS)) $(if $(WORKLOADS),-workloads=$(WORKLOADS)) $(if $(ROWS),-rows=$(ROWS)) \
               $(if $(PAIRS),-pairs=$(PAIRS)) $(if $(JSON),-json=$(JSON)) $(ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/dbmazz, one static binary without cgo.
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.linkedVersion=$(VERSION)" -o bin/dbmazz ./cmd/dbmazz
	@$(TOOLBOX) static bin/dbmazz

.PHONY: test
test: setup ## Install what is missing, then run all tests with the race detector.
	go test -race -timeout=$(TESTTIMEOUT) $(TESTFLAGS) $(PACKAGES)

.PHONY: test-matrix
test-matrix: setup setup-postgres-majors ## Run all tests on each PostgreSQL in MAJORS (13 to 18), one after the other; PACKAGES chooses some, RACE=-race takes twice as long.
	@failed=; for major in $(MAJORS); do echo "== PostgreSQL $$major"; \
	  DBMAZZ_TEST_PG_MAJOR=$$major ORACLE_MAJORS=$$major go test -count=1 $(RACE) -timeout=$(TESTTIMEOUT) $(TESTFLAGS) $(PACKAGES) || failed="$$failed $$major"; \
	done; if [ -n "$$failed" ]; then echo "failed on PostgreSQL$$failed"; exit 1; fi

.PHONY: race
race: test ## The same as test: the race detector is always on.

.PHONY: check
check: lint tidy ## Lint, format, house rules and go.mod.

.PHONY: lint
lint: ## Run the linters, formatting included; builds golangci-lint once.
	@$(TOOLBOX) lint run $(PACKAGES)

.PHONY: tidy
tidy: ## Check the house rules and that go.mod is tidy.
	go test -count=1 ./internal/tidy
	go mod tidy -diff
	cd deployments/check && go mod tidy -diff && go test -count=1 ./...

.PHONY: fmt
fmt: ## Format all Go files.
	@$(TOOLBOX) lint fmt $(PACKAGES)

.PHONY: generate
generate: ## Generate the gRPC code and everything else that is generated.
	go generate ./...

.PHONY: verify
verify: ## Fail if generated code is out of date.
	@$(TOOLBOX) verify

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s); MATCH chooses some.
	@$(TOOLBOX) fuzz --time=$(FUZZTIME) --match='$(MATCH)'

.PHONY: bench
bench: setup-postgres ## Measure the whole pipeline beside pg_recvlogical, 5 minutes; FULL=1 (25 minutes), PARTS, WORKLOADS, ROWS, PAIRS, JSON=file.
	go run ./internal/bench $(BENCHFLAGS)

.PHONY: bench-backlog
bench-backlog: setup-postgres ## Measure how fast 10 million rows drain that wait in the log, and in the queue.
	go run ./internal/bench $(BENCHFLAGS) -full -parts=backlog

.PHONY: bench-tables
bench-tables: setup-postgres ## Measure one pipeline with 1,000 tables.
	go run ./internal/bench $(BENCHFLAGS) -full -parts=tables

.PHONY: bench-pipelines
bench-pipelines: setup-postgres ## Measure 40 pipelines as 40 processes.
	go run ./internal/bench $(BENCHFLAGS) -full -parts=pipelines

.PHONY: bench-check
bench-check: setup-postgres ## Fail if a ratio of the quick benchmark has dropped below the recorded one by more than the noise.
	go run ./internal/bench $(BENCHFLAGS) -parts=throughput -check=internal/bench/recorded.json

.PHONY: bench-record
bench-record: setup-postgres ## Record the ratios of three pairs for bench-check; on a quiet machine only.
	go run ./internal/bench $(BENCHFLAGS) -parts=throughput -pairs=3 -record=internal/bench/recorded.json

.PHONY: microbench
microbench: setup ## Run the benchmarks of single functions; MATCH chooses some.
	go test -run='^$$' -bench='$(or $(MATCH),.)' -benchmem -timeout=60m $(PACKAGES)

.PHONY: microbench-compare
microbench-compare: setup ## Compare the benchmarks of single functions with those of BASE (HEAD) by benchstat; MATCH, COUNT (6), BENCHTIME (1s).
	@$(TOOLBOX) compare $(if $(BASE),--base=$(BASE)) $(if $(MATCH),--match='$(MATCH)') $(if $(COUNT),--count=$(COUNT)) $(if $(BENCHTIME),--time=$(BENCHTIME))

.PHONY: demo
demo: setup-postgres ## Run the whole pipeline on throw-away servers; CHANGES=N DIR=path KEEP=1 SEED=n KILL=n SINK_DOWN=90s HARD=1.
	go run ./internal/demo $(DEMOFLAGS)

.PHONY: chaos
chaos: setup-postgres ## Random histories against random faults; N=500 runs, SEED=first, REPORT=file, LOGS=folder.
	$(CHAOS) go test -count=1 -timeout=0 -v -run='^TestRandomHistories' $(if $(PARALLEL),-parallel=$(PARALLEL)) ./internal/chaos

.PHONY: chaos-planted
chaos-planted: setup-postgres ## Plant bugs in the code, one at a time: the chaos suite must catch each; BUG=part of a name.
	DBMAZZ_CHAOS_PLANTED='$(or $(BUG),all)' go test -count=1 -timeout=0 -v -run='^TestEachPlantedBugIsCaught' ./internal/chaos

.PHONY: ci
ci: TESTFLAGS += -count=1
ci: setup setup-postgres-majors check build verify test ## Everything that must pass before a change lands.
	@$(TOOLBOX) fuzz --time=$(CI_FUZZTIME)
	$(MAKE) demo CHANGES=$(CI_CHANGES) KEEP= DIR=

.PHONY: up
up: ## Start PostgreSQL, StarRocks and dbmazz with Docker.
	docker compose up --build --detach --wait

.PHONY: down
down: ## Stop the Docker containers and remove their volumes.
	docker compose down --volumes

.PHONY: setup
setup: setup-gcc setup-postgres ## Install what the tests need.

.PHONY: setup-gcc
setup-gcc: ## Install a C compiler for the race detector if there is none.
	@$(TOOLBOX) gcc

.PHONY: setup-postgres
setup-postgres: ## Install a PostgreSQL server if there is none.
	@$(TOOLBOX) postgres

.PHONY: setup-postgres-majors
setup-postgres-majors: ## Install PostgreSQL 13 to 18 into the cache (npm); tests then cover them all.
	@$(TOOLBOX) postgres-majors

.PHONY: setup-lint
setup-lint: ## Build golangci-lint into the cache.
	@$(TOOLBOX) lint-tool

.PHONY: setup-grpcurl
setup-grpcurl: ## Build grpcurl into the cache and print its path.
	@$(TOOLBOX) grpcurl

.PHONY: setup-nats-server
setup-nats-server: ## Build nats-server into the cache and print its path.
	@$(TOOLBOX) nats-server
