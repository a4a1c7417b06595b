# The targets a change is made and checked with; `make help` lists them.

SHELL     := bash
GO        ?= go
BIN       := bin/sluice
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS   := -s -w -X main.version=$(VERSION)
GOTOOL    := $(GO) tool -modfile=tools/go.mod
FUZZTIME  ?= 10s
# For each fuzz target in `make campaign`.
CAMPAIGN_FUZZTIME ?= 10m
BENCHTIME ?= 200ms
ROUNDS    ?= 3
# Modules beside the main one; `./...` does not reach into them.
SUBMODULES := tools tests/bench/peerbench tests/interop/paho5 tests/containers tests/kubernetes
# The npm package the interoperability tests speak AMQP with; it lives in build/.
RHEA      := 3.0.5

.DEFAULT_GOAL := build
# Images, Kubernetes and AWS have their targets beside what they build.
include $(wildcard infra/*/*.mk)
.PHONY: help build function run test test-all deps check lint race fuzz bench bench-large campaign fmt tidy tidy-check generate vuln clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## bin/sluice: static, paths trimmed, version from git
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN) ./cmd/sluice

# STORES leaves stores out: nosqlite, nopostgres, nodynamodb, by commas.
function: ## bin/sluice-function: functions alone; STORES=nosqlite,... leaves stores out
	CGO_ENABLED=0 $(GO) build -trimpath -tags "lambda.norpc,$(STORES)" -ldflags "$(LDFLAGS)" -o bin/sluice-function ./cmd/sluice-function

run: build ## everything in one process, with the demo tenant, data in ./data
	$(BIN) up --data ./data --demo

test: ## all that needs nothing but Go
	$(GO) test ./...

# One Docker engine for all that needs one; where none was running it ends with the target.
test-all: deps lint ## every test, containers, Kubernetes and the local AWS too: what they need is installed, a missing one is a failure, skips are listed
	infra/docker/deps run $(MAKE) --no-print-directory test-everything

.PHONY: test-everything
test-everything: build images aws-package local-aws-deps
	set -o pipefail; SLUICE_TEST_ALL=1 $(GO) test -json -count=1 -timeout 30m ./... | $(GO) run ./tests/report
	$(MAKE) --no-print-directory test-containers
	$(MAKE) --no-print-directory test-kubernetes
	$(MAKE) race
	$(GO) test -run '^$$' -fuzz '^FuzzPeer$$' -fuzztime 30s ./internal/amqp/peer
	cd tests/bench/peerbench && $(GO) vet ./...

deps: ## install the foreign clients and servers that test-all and bench use
	tests/deps $(RHEA)

check: lint tidy-check vuln race ## what a change must pass

lint: ## gofmt, go vet, staticcheck, the import rules
	@out=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$out" ]; then echo "not formatted (run make fmt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GOTOOL) staticcheck ./...
	$(GO) test -count=1 ./tests/arch

race: ## all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 $$($(GO) list ./... | grep -v /tests/)

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			echo "$$(dirname $$file) $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -timeout 0 -fuzztime $(FUZZTIME) $$(dirname $$file); \
		done; \
	done

bench: build ## benchmarks beside the code, then the server against its peers
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...
	$(GO) run ./tests/bench -rounds $(ROUNDS)

# A quiet machine, some 5 GB of disk and a quarter of an hour.
bench-large: ## the registry with a million devices in SQLite, and how fast sluice-function starts
	SLUICE_BENCH_DEVICES=1000000 $(GO) test -run '^$$' -bench BenchmarkLoad -benchtime 1x -timeout 60m ./internal/registry/sqlitestore
	SLUICE_BENCH_DEVICES=1000000 $(GO) test -run '^$$' -bench BenchmarkLarge -benchtime 2000x -timeout 60m ./internal/registry/sqlitestore
	SLUICE_BENCH_DEVICES=1000000 $(GO) test -run '^$$' -bench 'BenchmarkAdmit/(sha-256|x509|bcrypt-10-mac)$$' -benchtime 20000x -timeout 60m ./functions
	$(GO) test -run '^$$' -bench BenchmarkStart -benchtime 50x ./cmd/sluice-function

campaign: deps ## what takes hours: soaks, storms and kills in full, each fuzz target for ten minutes
	SLUICE_CAMPAIGN=1 $(GO) test -count=1 -v -timeout 240m ./tests/campaign
	$(MAKE) fuzz FUZZTIME=$(CAMPAIGN_FUZZTIME)

fmt: ## format the source
	gofmt -w $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')

tidy: ## go mod tidy in every module
	$(GO) mod tidy
	@set -e; for m in $(SUBMODULES); do echo "tidy $$m"; (cd $$m && $(GO) mod tidy); done

API       := functions/management/api/z_api.go
generate: ## the code that is made from the OpenAPI document
	$(GOTOOL) oapi-codegen -config tools/openapi/config.yaml -o $(or $(OUT),$(API)) functions/management/openapi.yaml

tidy-check: ## fail when go.mod, go.sum or the generated code is not as tidy and generate leave it
	@mkdir -p build && $(MAKE) --no-print-directory -s generate OUT=build/z_api.txt
	@diff -u $(API) build/z_api.txt || { echo "$(API) is not what its document says: run make generate"; exit 1; }
	$(GO) mod tidy -diff
	@set -e; for m in $(SUBMODULES); do echo "tidy -diff $$m"; (cd $$m && $(GO) mod tidy -diff); done

vuln: ## known vulnerabilities in what we call; skipped without the database
	@if out=$$($(GOTOOL) govulncheck ./... 2>&1); then echo "$$out"; \
	elif echo "$$out" | grep -q 'fetching vulnerabilities'; then \
		echo "govulncheck skipped: the vulnerability database cannot be reached"; \
	else echo "$$out"; exit 1; fi

clean: ## remove what was built; data stays
	rm -rf bin build
