# One command surface: a person and CI run the same.

CARGO ?= cargo
# For make certs.
CONFIG ?= understudy.toml
DIR ?= certs

.PHONY: help tools build demo certs secrets test lint fmt e2e compose deb packages soak fuzz bench

help:            ## what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/: *[^#]*## */\t/' | expand -t 12

tools:           ## install what build and tests need (Debian packages, nats-server)
	scripts/install-tools

build: tools     ## build everything
	$(CARGO) build --workspace --all-targets

demo: tools      ## watch failovers, a repair, scaling; KEEP=1 leaves it running
	$(CARGO) build --workspace --bins
	target/debug/understudy-lab demo $(if $(KEEP),--keep)

certs:           ## development authority and credentials; CONFIG=understudy.toml DIR=certs
	$(CARGO) run --quiet -p understudy-cli -- certs $(CONFIG) --dir $(DIR)
	$(CARGO) run --quiet -p understudy-cli -- nats-auth $(CONFIG) --keys $(DIR) > $(DIR)/nats-auth.conf

# fuzz/ is a workspace of its own; the last line fails when its lock file is behind.
lint: tools      ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	cd fuzz && $(CARGO) fmt --check
	cd fuzz && $(CARGO) update --quiet --workspace --locked

# The end-to-end tests run one after the other and last: they measure milliseconds.
test: lint build ## everything, unit to end-to-end
	$(CARGO) test --workspace --exclude understudy-e2e --exclude understudy-compose
	$(MAKE) e2e
	$(MAKE) compose

e2e: build       ## end-to-end tests alone, with the table of gaps
	rm -f target/e2e/gaps.jsonl
	$(CARGO) test --workspace --test e2e -- --test-threads=1; status=$$?; \
	target/debug/understudy-lab gaps target/e2e/gaps.jsonl; exit $$status

soak: build      ## a thousand random faults in ten minutes, memory and open files too; SEED=n replays one
	target/debug/understudy-lab nemesis --faults 1000 --folder target/soak $(if $(SEED),--seed $(SEED))

fuzz:            ## fuzz every decoder, TARGET=... for one, SECONDS_EACH=60, KEEP=1 keeps what is new
	scripts/install-tools fuzz
	scripts/fuzz $(TARGET)

# Not part of the tests: figures of a machine, not of the code alone. Fails when a figure misses its target.
bench:           ## measure everything, or what ONLY names: node takeover detector failover scaling
	scripts/install-tools bench
	$(CARGO) build --release --workspace --bins
	target/release/understudy-bench $(ONLY)

compose: build   ## tests of docker-compose.yml on this machine's Docker engine
	scripts/compose-tests

deb:             ## Debian packages in target/debian, optimised
	scripts/packages

# Not part of the tests, for their time: cargo-deb is compiled, a machine is made. See docs/deployment.md.
packages: build  ## Debian packages of what is in target/debug, tested on a machine with systemd
	scripts/package-tests

secrets:         ## make the secrets that docker-compose.yml needs
	scripts/make-secrets

fmt:             ## format
	$(CARGO) fmt --all
	cd fuzz && $(CARGO) fmt
