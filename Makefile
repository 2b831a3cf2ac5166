# A thin front door to CMake.
BUILD ?= build
.PHONY: all debug asan tsan check format lint install clean
all:
	@cmake -S . -B $(BUILD) >/dev/null && cmake --build $(BUILD) -j $$(nproc)
debug:
	@cmake -S . -B build-debug -DCMAKE_BUILD_TYPE=Debug >/dev/null && cmake --build build-debug -j $$(nproc)
asan:
	@FACET_BUILD=build-asan FACET_SANITIZE=address,undefined scripts/check
tsan:
	@FACET_BUILD=build-tsan FACET_SANITIZE=thread scripts/check
check:
	@FACET_BUILD=$(BUILD) scripts/check
format:
	@cmake -S . -B $(BUILD) >/dev/null && cmake --build $(BUILD) --target format
lint:
	@cmake -S . -B $(BUILD) >/dev/null && cmake --build $(BUILD) --target format-check cppcheck tidy
install: all
	@DESTDIR=$(DESTDIR) cmake --install $(BUILD) $(if $(PREFIX),--prefix $(PREFIX))
clean:
	@rm -rf build build-debug build-asan build-tsan
