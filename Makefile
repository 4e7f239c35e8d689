# certwright: `make deps` installs what is needed, `make` builds ./certwright,
# `make demo` shows the whole workflow on real servers, `make test` tests it.

VERSION = 0.1.0
PREFIX = /usr/local
DESTDIR =
CC = gcc
CFLAGS = -O2 -g
BUILD = build
PROGRAM = certwright

# What the program is made of, what demo and tests run against.
DEPS = gcc make pkg-config liblua5.4-dev libssl-dev libsqlite3-dev \
  libcurl4-openssl-dev libidn2-dev zlib1g-dev lua-filesystem lua-argparse lua-dkjson lua-readline
SERVERS = nginx-light postfix dovecot-imapd dovecot-pop3d openssl hostname
TESTING = lua5.4 lua-busted lua-check clang-format socat strace sudo tmux procps zip gnutls-bin \
  libnss3-tools util-linux
FUZZING = clang libclang-rt-dev llvm

LIBRARIES = lua5.4 openssl
# Modules of core/ that are loaded when they are used, and what each needs.
MODULES = http idna store zip
NEEDS_http = libcurl
NEEDS_idna = libidn2
NEEDS_store = sqlite3
NEEDS_zip = zlib
SEARCH_PATH = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LOCALE = C.UTF-8

WARN = -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
  -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 \
  -Wvla -Wwrite-strings
HARDEN = -fPIE -fstack-protector-strong $(if $(findstring -O,$(CFLAGS)),-D_FORTIFY_SOURCE=2)
DEFINES = -D_GNU_SOURCE -DVERSION='"$(VERSION)"' \
  -DLUA_CMODULES='"/usr/lib/$(shell $(CC) -print-multiarch)/lua/5.4"' \
  -DSEARCH_PATH='"$(SEARCH_PATH)"' -DLOCALE='"$(LOCALE)"' -DMODULES='"$(BUILD)/modules"'
OBJECTS = $(patsubst core/%.c,$(BUILD)/%.o,$(filter-out $(MODULES:%=core/%.c),$(wildcard core/*.c)))
SHARE = $(DESTDIR)$(PREFIX)/share/certwright
LIB = $(DESTDIR)$(PREFIX)/lib/certwright

# What is compiled of Lua, of the files in the tree and the libraries they use.
CHUNKS = $(BUILD)/modules/chunks
SLOWER = echo "certwright: Lua is not compiled ahead: every command takes longer, and does the same" >&2
all: $(PROGRAM) $(CHUNKS)

$(CHUNKS): $(PROGRAM) core/chunks.lua $(wildcard scripts/*.lua lua/*.lua lua/*/*.lua)
	@echo "  LUAC $@"
	@./$(PROGRAM) core/chunks.lua $@ $(CURDIR) $(CURDIR) || $(SLOWER)

$(PROGRAM): $(OBJECTS) $(TEST_OBJECTS) | $(MODULES:%=$(BUILD)/modules/%.so)
	@echo "  LINK $@"
	@$(CC) $(CFLAGS) -pie -Wl,--as-needed -Wl,-z,relro -Wl,-E -o $@ $^ \
	  $(LDFLAGS) $$(pkg-config --libs $(LIBRARIES)) -lm

$(BUILD)/%.o: core/%.c Makefile | $(BUILD)/libraries
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) $(WARN) $(HARDEN) $(DEFINES) \
	  $$(pkg-config --cflags $(LIBRARIES)) -MMD -MP -c -o $@ $<

# What they use of the program's own, the program itself has.
$(BUILD)/modules/%.so: core/%.c Makefile | $(BUILD)/libraries
	@echo "  LINK $@"
	@mkdir -p $(@D)
	@$(CC) $(CFLAGS) $(WARN) $(HARDEN) -fPIC $(DEFINES) $$(pkg-config --cflags $(LIBRARIES) $(NEEDS_$*)) \
	  -MMD -MP -MF $(BUILD)/$*.so.d -shared -Wl,-z,relro -o $@ $< $$(pkg-config --libs $(NEEDS_$*))

$(BUILD)/%.o: tests/%.c Makefile | $(BUILD)/libraries
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) $(WARN) $(HARDEN) $(DEFINES) \
	  $$(pkg-config --cflags $(LIBRARIES)) -MMD -MP -c -o $@ $<

$(BUILD)/fuzz-%.o: tests/fuzz/%.c Makefile | $(BUILD)/libraries
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) $(WARN) $(HARDEN) $(DEFINES) -DREADERS='"$(CURDIR)/tests/support/readers.lua"' \
	  $$(pkg-config --cflags $(LIBRARIES)) -MMD -MP -c -o $@ $<

# A missing library is named, with what installs it.
$(BUILD)/libraries:
	@mkdir -p $(BUILD)
	@pkg-config --print-errors --exists $(LIBRARIES) $(foreach m,$(MODULES),$(NEEDS_$m)) || \
	  { echo "certwright: a package is missing (see above): run 'make deps'" >&2; exit 1; }
	@touch $@

deps:
	@sh tests/install-packages $(DEPS)

deps-demo:
	@sh tests/install-packages $(DEPS) $(SERVERS)

deps-test:
	@sh tests/install-packages $(DEPS) $(SERVERS) $(TESTING)

deps-fuzz:
	@sh tests/install-packages $(DEPS) $(FUZZING)

demo: deps-demo
	@$(MAKE) --no-print-directory all
	@./$(PROGRAM) tests/demo.lua

test: deps-test
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory check
	@./$(PROGRAM) tests/run.lua

# The whole suite again in a program under ASan, UBSan and LeakSanitizer, whose
# collector never rests (tests/sanitize.c).
SANITIZE = address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
WRAPPED = luaL_newstate lua_newuserdatauv lua_createtable lua_pushlstring lua_pushstring
test-sanitize: deps-test
	@$(MAKE) --no-print-directory all BUILD=build/sanitize PROGRAM=certwright-asan HARDEN=-fPIE \
	  CFLAGS='-O1 -g -fsanitize=$(SANITIZE)' LDFLAGS='$(WRAPPED:%=-Wl,--wrap=%)' TEST_OBJECTS=build/sanitize/sanitize.o
	@./certwright-asan tests/run.lua

bench: deps-test
	@sh tests/install-packages lua-luaossl
	@$(MAKE) --no-print-directory all
	@./$(PROGRAM) tests/bench.lua

# Each target in tests/fuzz for so many seconds, with the corpus as seeds.
SECONDS = 60
TARGETS = $(filter-out driver,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
fuzz: deps-fuzz
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory BUILD=build/fuzz CC=clang HARDEN= \
	  CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,$(SANITIZE)' $(TARGETS:%=build/fuzz/%)
	@./$(PROGRAM) tests/corpus/make.lua build/fuzz/seeds
	@tests/fuzz/run $(SECONDS) build/fuzz $(TARGETS)

build/fuzz/%: build/fuzz/fuzz-%.o build/fuzz/fuzz-driver.o $(filter-out $(BUILD)/main.o,$(OBJECTS)) $(BUILD)/zip.o
	@echo "  LINK $@"
	@$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $^ $$(pkg-config --libs $(LIBRARIES) $(NEEDS_zip)) -lm
.SECONDARY:

# Form and lint.
check:
	@clang-format --dry-run --Werror core/*.c core/*.h tests/*.c tests/fuzz/*.c tests/fuzz/*.h
	@luacheck --quiet core lua scripts tests
	@tests/layers

install: $(PROGRAM)
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE) $(LIB)
	install -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/certwright
	install -m 644 $(MODULES:%=$(BUILD)/modules/%.so) $(LIB)/
	cp -R lua scripts $(SHARE)/
	cat core/*.c > $(SHARE)/reference.txt
	chmod -R u=rwX,go=rX $(SHARE)
	$(DESTDIR)$(PREFIX)/bin/certwright -e "$$(cat core/chunks.lua)" $(LIB)/chunks $(SHARE) $(PREFIX)/share/certwright \
	  || $(SLOWER)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/certwright
	rm -rf $(SHARE) $(LIB)

clean:
	rm -rf $(BUILD) $(PROGRAM) certwright-asan

-include $(wildcard $(BUILD)/*.d)
.PHONY: all deps deps-demo deps-test deps-fuzz demo test test-sanitize fuzz bench check install uninstall clean
