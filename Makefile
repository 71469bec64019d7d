# The door to everything; the work is done by scripts/.

# As typed: a file's name may have a $ in it, and so may a word for the kernel or a regular expression.
variables := BOOT SCREEN DISK FILTER SEED MEM SMP JOBS IMAGE ARGS FILE CHECK RECORD PROFILE BY OPERATIONS TARGET OUTPUT
$(foreach variable,$(variables),$(eval override $(variable) := $$(value $(variable))))
# Bash has a SECONDS of its own.
override SECONDS_ASKED := $(value SECONDS)
export $(variables) SECONDS_ASKED

.PHONY: help
help:
	@echo 'make run     boot the kernel; it reads a disk through coherent DMA and prints its SHA-256'
	@echo '                 DISK=FILE (a small image is made), MEM=512M, SMP=1, BOOT=elf (or atags, dtb),'
	@echo '                 SCREEN=gtk (who shows the screen: sdl, vnc=:1, ...), ARGS="vmalloc=256M ..."'
	@echo 'make test    all tests, on the host and in the kernel'
	@echo '                 FILTER=part-of-a-name, SEED=number, MEM=512M (one memory size only), JOBS=number'
	@echo 'make bench   what operations cost in instructions, beside Linux; target/bench.json, target/bench.svg'
	@echo '                 FILTER=part-of-a-row, JOBS=number, CHECK=1 (fails if dearer than recorded), RECORD=1,'
	@echo '                 PROFILE=row (which functions the instructions fall into; BY=line, OPERATIONS=number)'
	@echo 'make mutants change kerncore a little and see whether its tests notice; all of it takes hours'
	@echo '                 FILE=pool (a file or folder of it), FILTER=regular-expression, JOBS=number'
	@echo 'make fuzz    look, guided by coverage, for histories that break something'
	@echo '                 SECONDS=60, TARGET=histories (or boot), SEED=number'
	@echo 'make stress  all operations from all CPUs at once, boot after boot'
	@echo '                 SECONDS=60 (0 is one boot), SEED=number, SMP=4'
	@echo 'make gdb     boot halted at reset, with gdb attached'
	@echo '                 GDBFLAGS="-batch -x FILE", IMAGE=kernel-tests, ARGS="test=vmalloc", MEM, SMP'
	@echo 'make check   format, lints, documentation and scripts, with warnings denied'
	@echo 'make image   build target/mapwright.elf and target/kernel-tests.elf'
	@echo 'make doc     the documentation of every crate, under target/'
	@echo 'make fmt     format all Rust code'
	@echo 'make setup   install what is missing; all of the above begin with it'
	@echo 'make clean   remove what was built'

.PHONY: setup
setup:
	@scripts/setup

.PHONY: run
run:
	@set -f; scripts/run "$$DISK" $$ARGS

.PHONY: test
test: setup
	@scripts/test

.PHONY: bench
bench: setup
	@scripts/bench

.PHONY: mutants
mutants: setup
	@scripts/mutants

.PHONY: stress
stress: setup
	@scripts/stress

.PHONY: fuzz
fuzz: setup
	@scripts/fuzz

.PHONY: gdb
gdb: setup
	@scripts/gdb $(GDBFLAGS)

.PHONY: check
check: setup
	@scripts/check

.PHONY: image
image: setup
	@scripts/image mapwright kernel-tests

.PHONY: doc
doc: setup
	@scripts/cargo doc --no-deps
	@scripts/cargo doc --no-deps --target armv7a-none-eabi --workspace --exclude machine --exclude properties \
		--exclude histories --exclude fuzz --exclude host --exclude bench-report --exclude ksyms --exclude mkdtb --exclude ktest-macros

.PHONY: fmt
fmt: setup
	@scripts/cargo fmt --all

.PHONY: clean
clean:
	@rm -rf target
