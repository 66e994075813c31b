# make chat    install what is missing, build, start a mesh, answer about a picture, stop
# make test    install what is missing, build, run all tests
# make bench   measure a 0.7 B-parameter model beside PyTorch and llama.cpp, which it installs in
#              .build/bench, and write docs/benchmarks.md; about an hour, 20 GiB of disk
# make bench-quick  measure Chiasm alone: the wire, the model, a mesh; two or three minutes
# make build   the five executables, in .build/release
# make proto   C sources of the messages, from proto/
# make format  lay out the Swift sources; make lint only looks
# make deps    the Debian packages that the build needs

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

SWIFT_FLAGS := -c release -Xswiftc -enable-testing
RELEASE := .build/release
PACKAGES := libprotobuf-c-dev protobuf-c-compiler libopenblas-dev libjpeg-dev libpng-dev \
  libsentencepiece-dev libssl-dev libedit-dev pkg-config

MODEL ?= compose/models/iris
PICTURE ?= compose/pictures/drawn-cat.jpg
PROMPT ?= What is in the picture?
BENCH_MODEL ?= .build/bench-model
BENCH := .build/bench
# For example: --phases image text, --rounds 3, --report.
BENCH_FLAGS ?=

.PHONY: build chat test bench bench-quick proto proto-check format lint deps swift

build: deps swift
	swift build $(SWIFT_FLAGS)

chat: build
	$(RELEASE)/chiasm chat --model '$(MODEL)' --image '$(PICTURE)' --max-tokens 48 '$(PROMPT)'

test: deps swift
	swift build $(SWIFT_FLAGS) --build-tests
	swift test $(SWIFT_FLAGS) --skip-build --no-parallel

bench: build
	@if ! command -v python3 >/dev/null; then \
	  echo 'PyTorch and llama.cpp need Python: install python3 and python3-venv;' >&2; \
	  echo 'make bench-quick measures Chiasm alone.' >&2; exit 1; fi
	@python3 Tests/Benchmarks/prepare.py '$(BENCH)'
	@$(BENCH)/venv/bin/python -B Tests/Benchmarks/bench.py --root '$(BENCH)' \
	  --chiasm $(RELEASE)/chiasm --model '$(BENCH_MODEL)' $(BENCH_FLAGS)

bench-quick: build
	@if [ ! -e '$(BENCH_MODEL)/config.json' ]; then \
	  $(RELEASE)/chiasm random-model '$(BENCH_MODEL)' \
	    --tokenizer Tests/Fixtures/golden/v12-tiny/checkpoint; fi
	@for type in q8 q4; do \
	  if [ ! -e "$(BENCH)/chiasm-$$type/config.json" ]; then \
	    mkdir -p '$(BENCH)'; \
	    $(RELEASE)/chiasm quantize '$(BENCH_MODEL)' --type $$type "$(BENCH)/chiasm-$$type"; fi; done
	$(RELEASE)/chiasm bench --model '$(BENCH_MODEL)' --model $(BENCH)/chiasm-q8 \
	  --model $(BENCH)/chiasm-q4 --rounds 2 --picture .build/bench-pipeline.svg

proto:
	protoc-c --proto_path=proto --c_out=Shared/CMessages proto/*.proto
	mv Shared/CMessages/*.pb-c.h Shared/CMessages/include/

proto-check:
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	protoc-c --proto_path=proto --c_out="$$tmp" proto/*.proto; \
	for f in "$$tmp"/*.c; do diff -u "Shared/CMessages/$$(basename "$$f")" "$$f"; done; \
	for f in "$$tmp"/*.h; do diff -u "Shared/CMessages/include/$$(basename "$$f")" "$$f"; done; \
	echo 'Shared/CMessages matches proto/'

format:
	swift format format --in-place --parallel --recursive Package.swift Services Shared Tests

lint:
	swift format lint --strict --parallel --recursive Package.swift Services Shared Tests

deps:
	@missing=''; \
	for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' \
	    || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get >/dev/null; then \
	    echo "Install these libraries with their headers, by their Debian names:$$missing" >&2; \
	    exit 1; fi; \
	  sudo=''; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	  echo "Installing:$$missing" >&2; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive \
	    $$sudo apt-get install -y -qq --no-install-recommends $$missing; \
	fi

swift:
	@if ! command -v swift >/dev/null; then \
	  echo 'Chiasm needs Swift 6.2 or later, which is not on the PATH.' >&2; \
	  echo 'https://www.swift.org/install/linux has it for Debian 12; then run make again.' >&2; \
	  exit 1; fi
