# weigh: make run, make test; the rest is listed by make help.

GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PREFIX      ?= /usr/local
FUZZTIME    ?= 30s
# No test is timed: the limit is for one that hangs, on the slowest machine.
SLOW        := -timeout 40m

# go-nvml's header marks what it still uses as deprecated.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
# go-nvml resolves the driver's symbols when they are called: binding them all
# at start, as hardened toolchains do, would end the program where there is none.
LAZY     = $(if $(filter linux,$(shell go env GOOS)),$(if $(filter 1,$(shell go env CGO_ENABLED)),-extldflags=-Wl$(comma)-z$(comma)lazy))
comma   := ,
LDFLAGS  = -s -w $(LAZY)
BUILD    = go build -trimpath -ldflags '$(LDFLAGS)'

.PHONY: help build run test race check cross bench fuzz accuracy install release clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | expand -t 16

build: ## build ./weigh
	$(BUILD) -o weigh ./cmd/weigh

run: build ## weigh the header of a Llama 3.1 8B against this machine
	./weigh demo || test $$? -eq 1

test: ## every test that needs nothing but Go; those of the NVIDIA driver use gcc where there is one
	go test $(SLOW) ./...

race: ## the packages that do several things at once, under the race detector
	go test $(SLOW) -race -short ./cmd/weigh/... ./estimate/hw/... ./inspect ./inspect/check ./inspect/hf ./inspect/store

check: build cross ## formatting, vet, staticcheck, modules, cross builds, the built program
	@out=$$(go run $(GOFUMPT) -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff
	go mod verify
	./weigh demo --gpu 'RTX 4090' --host-memory 64GiB --json >/dev/null
	@if command -v readelf >/dev/null && readelf -d weigh | grep -E 'BIND_NOW|FLAGS.*NOW'; then echo "weigh binds the driver's symbols at start"; exit 1; fi

cross: ## build for the other systems, without cgo
	@for t in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do \
		echo "build $$t"; CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} go build -o /dev/null ./cmd/weigh || exit 1; \
		CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} go vet ./... || exit 1; done

bench: ## benchmarks, beside the peers where they are installed
	go test -run '^$$' -bench . -benchmem ./...
	go run ./cmd/bench

fuzz: ## every fuzz target for FUZZTIME (30s)
	@go list ./... | while read -r pkg; do \
		go test -list '^Fuzz' $$pkg | grep '^Fuzz' | while read -r name; do \
			echo "$$pkg $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg </dev/null || exit 1; done || exit 1; done

accuracy: ## compare with what llama.cpp was measured to allocate; writes docs/ACCURACY.md
	go run ./cmd/accuracy -write docs/ACCURACY.md

install: build ## install the program, its man pages and shell completions below PREFIX (/usr/local)
	install -D weigh $(DESTDIR)$(PREFIX)/bin/weigh
	./weigh man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	./weigh completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/weigh
	./weigh completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_weigh
	./weigh completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/weigh.fish

release: ## reproducible builds for every system, checksums and a bill of materials in dist
	rm -rf dist && mkdir -p dist
	@for t in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do \
		exe=; test $${t%/*} != windows || exe=.exe; \
		out=dist/weigh-$${t%/*}-$${t#*/}$$exe; echo "build $$out"; \
		CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} go build -trimpath -buildvcs=true -ldflags '-s -w -buildid=' -o $$out ./cmd/weigh || exit 1; done
	@if command -v gcc >/dev/null && test "$$(go env GOOS)" = linux; then \
		CGO_ENABLED=1 go build -trimpath -ldflags '-s -w -buildid= -extldflags=-Wl,-z,lazy' -o dist/weigh-linux-$$(go env GOARCH)-cgo ./cmd/weigh; fi
	go run ./cmd/sbom dist/weigh-* > weigh.cdx.json && mv weigh.cdx.json dist
	cd dist && sha256sum * > SHA256SUMS

clean: ## remove what the targets made
	rm -rf weigh dist

include fixtures/llamacpp/llamacpp.mk
