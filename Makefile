# uvs: every target that a person calls has its explanation behind ##; `make help` lists them.
SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
COMMANDS := uvsd uvsadm uvsdecap uvs-agent uvsbench
# For the targets that install: where the binaries were built to, and below which directory they are installed.
BIN ?= bin
PREFIX ?= /usr/local

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## static binaries of all commands in bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(COMMANDS))

.PHONY: demo
demo: build ## the main job on the built-in lab: DR, TUN and NAT with real clients and servers (KEEP=1 leaves it up)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/uvsdemo ./lab/demo
	@bin/uvsdemo $(if $(KEEP),--keep)

.PHONY: test
test: ## everything that guards uvs: lint, unit, race, allocations, fuzz seeds, end to end (as root)
	@scripts/test.sh

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, manual pages
	@scripts/lint.sh

.PHONY: bench
bench: build ## five to ten minutes of everything: simulated studies, directors side by side, load, stages, scale; bin/bench/report.html (as root)
	@scripts/deps.sh wrk nginx-light libnginx-mod-stream haproxy nftables
	@scripts/bench.sh bin/bench

.PHONY: bench-go
bench-go: ## benchmarks beside the code, with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-wire
bench-wire: build ## uvs beside bare forwarders, the kernel, HAProxy, nginx, DPDK: a Markdown table, bin/wire.json (as root, 30 min)
	@scripts/deps.sh iperf3 wrk nginx-light libnginx-mod-stream haproxy nftables dpdk-dev
	@bin/uvsbench wire --markdown --json bin/wire.json --samples bin/wire-samples.json $(BENCHFLAGS)

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (default 30s) each
	@scripts/fuzz.sh $(or $(FUZZTIME),30s)

.PHONY: oracle
oracle: ## N=300 random sequences on the real ip_vs (user-mode Linux, 10 min) and on uvs, compared; SEED=n or REPLAY=file again
	@scripts/deps.sh user-mode-linux ipvsadm kmod iproute2 iptables gcc libc6-dev
	@$(GO) run ./internal/oracle -n $(or $(N),300) $(if $(SEED),-seed $(SEED)) $(if $(REPLAY),-replay $(REPLAY))

.PHONY: broken
broken: ## does each cell of the matrix fail when its method is broken? FAULT=name for one (as root, 20 min)
	@scripts/broken.sh $(FAULT)

.PHONY: install
install: ## programs, manual pages, shell completion from bin/ to PREFIX=/usr/local, below DESTDIR if it is set
	@DESTDIR='$(DESTDIR)' scripts/install.sh install $(BIN) $(PREFIX)

.PHONY: uninstall
uninstall: ## takes away what install put there
	@DESTDIR='$(DESTDIR)' scripts/install.sh remove $(PREFIX)

.PHONY: install-ipvsadm
install-ipvsadm: ## bin/uvsadm as /sbin/ipvsadm, for scripts and ldirectord; Debian's own is set aside (as root)
	@scripts/ipvsadm-name.sh install $(BIN)/uvsadm $(PREFIX)/sbin

.PHONY: uninstall-ipvsadm
uninstall-ipvsadm: ## undoes install-ipvsadm: Debian's own ipvsadm is back, if there is one (as root)
	@scripts/ipvsadm-name.sh remove

.PHONY: clean
clean: ## remove what was built, and labs that demo KEEP=1 left
	@if [ -x bin/uvsdemo ]; then bin/uvsdemo --remove; fi
	rm -rf bin
