# quickstart: from a bare Debian machine to a running sandbox. test: everything that is tested. `make help` lists all.
SHELL := /bin/bash
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help quickstart build images executable release-dry-run test test-contract test-machine lint coverage format generate bench bench-peers soak clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

quickstart: ## Install what is missing, build, start everything on this machine and run a sandbox
	@infra/setup/debian.sh build
	@$(MAKE) --no-print-directory build
	@infra/setup/quickstart.sh

node_modules/.package-lock.json: package.json package-lock.json $(wildcard packages/*/package.json)
	@echo "Fetching dependencies (npm ci) ..." >&2
	@npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@npm run --silent prepare >/dev/null
	@touch $@

build: node_modules/.package-lock.json ## Build bin/fsb-ctl and the node's native programs
	@echo "Building bin/fsb-ctl and the native programs ..." >&2
	@$(MAKE) --no-print-directory -s -C packages/agent/native OUT=$(CURDIR)/dist
	@npm run --silent build

images: build ## Build the images of controller, agent and janitor, as OCI archives in dist/images
	@node infra/images/main.ts

test: ## Set up what the tests need and run all of them
	@infra/setup/debian.sh test
	@$(MAKE) --no-print-directory images
	@npm run --silent check
	@npm run --silent lint
	@npm run --silent test

test-contract: build ## Run the Kubernetes contract suite, against FSB_TEST_KUBECONFIG where it is set
	@npx vitest run --project integration packages/local/test/contract

test-machine: build ## Take the first steps on a Debian just installed, with systemd and cgroup v2, in a virtual machine
	@infra/setup/debian.sh machine
	@infra/machine/run.sh

lint: node_modules/.package-lock.json ## Check format, lint rules, types and the direction of imports
	@npm run --silent check
	@npm run --silent lint

coverage: node_modules/.package-lock.json ## Say for each package how much of it the tests of SUITES (unit) run
	@node infra/setup/coverage.ts $(SUITES)

format: node_modules/.package-lock.json ## Format everything
	@npm run --silent format

generate: node_modules/.package-lock.json ## Make the generated code anew
	@npm run --silent generate

executable: build ## Build fsb-ctl as one file with its own node, in dist/release
	@node packages/cli/build/executable.ts

release-dry-run: images ## Check versions and changelog, build what a release publishes, and list it
	@node infra/setup/release.ts

bench: build ## Measure starts against what you would use instead, density, and the control plane: about ten minutes
	@infra/setup/debian.sh test
	@node infra/bench/main.ts

bench-peers: ## Install what the benchmark compares with: Docker Engine, podman
	@infra/setup/debian.sh peers

soak: build ## Kill what can be killed under load, for MINUTES (10), and prove that nothing is lost
	@infra/setup/debian.sh test
	@node infra/soak/main.ts --minutes $(or $(MINUTES),10)

clean: ## Remove what was built
	@rm -rf bin dist bench coverage
