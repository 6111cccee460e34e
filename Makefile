# One command surface: a person and CI run the same.

CARGO ?= cargo

.PHONY: help tools build demo test lint fmt e2e gaps

help:            ## what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/: *[^#]*## */\t/' | expand -t 12

tools:           ## install what build and tests need (Debian packages, nats-server)
	scripts/install-tools

build: tools     ## build everything
	$(CARGO) build --workspace --all-targets

demo: tools      ## watch failovers; KEEP=1 leaves it running
	$(CARGO) build --workspace --bins
	target/debug/understudy-lab demo $(if $(KEEP),--keep)

lint: tools      ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The end-to-end tests run one after the other and last: they measure milliseconds.
test: lint build ## everything, unit to end-to-end
	$(CARGO) test --workspace --exclude understudy-e2e
	$(MAKE) e2e

e2e: build       ## end-to-end tests alone, with the table of gaps
	rm -f target/e2e/gaps.jsonl
	$(CARGO) test -p understudy-e2e --no-fail-fast -- --test-threads=1; status=$$?; \
	target/debug/understudy-lab gaps target/e2e/gaps.jsonl; exit $$status

fmt:             ## format
	$(CARGO) fmt --all
