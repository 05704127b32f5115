# Every target does the set-up it needs in a .venv of the checkout: `make demo` and `make test` run on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup lock release demo demo-speech test test-fast lint format bench bench-check zoo api-docs golden torch-range families android ios web \
  pi older-cpu browser clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## both packages, editable, and every tool, in .venv

# What is locked, file by file, is this one platform; every other one takes the newest versions in the packages' ranges.
# torch comes by version alone: which of its builds a machine gets, its index decides, and so the hash of its file.
# Most modules are never imported here: they are compiled when they are, and not all 25,000 beforehand.
LOCKED := $(shell $(PYTHON) -c "import platform as p, sys; \
  print(sys.version_info[:2] == (3, 11) and (sys.platform, p.machine()) == ('linux', 'x86_64'))")

$(READY): pyproject.toml runtime/pyproject.toml requirements.lock
	@echo "Installing into .venv (a few minutes)..."
	@$(PYTHON) -m venv .venv
ifeq ($(LOCKED),True)
	@$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-compile torch==2.13.0
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e ./runtime -e .
	@$(BIN)/pip check
else
	@$(BIN)/pip install --quiet torch==2.13.0
	@$(BIN)/pip install --quiet -e ./runtime -e '.[all,dev]'
endif
	@touch $@

# Writes requirements.lock from .venv, once its newer versions have passed the tests. Needs uv.
lock: setup ## requirements.lock, from what .venv holds; needs uv
	@$(BIN)/python -m tools.lock

# Wheels of both packages, the list of what they bring (CycloneDX) and its licences, in dist/.
release: setup ## wheels, bill of materials and licences, in dist/
	@$(BIN)/python -m tools.release dist

demo: setup ## the built-in classifiers, converted to every target and asked, in dist/
	@$(BIN)/edgeformer demo --out dist

demo-speech: setup ## the same of Whisper tiny.en
	@$(BIN)/edgeformer demo --speech --out dist

# One worker per core, up to four, as each may take 4 GB; a file's tests stay together, for they share what they convert.
# Files keep the order of tests/conftest.py: xdist's own starts files of few tests, which are the slow ones, at the end.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup ## every test
	@$(TEST)

test-fast: setup ## the tests that are not marked slow
	@$(TEST) -m "not slow"

format: setup ## lays out the code, and mends what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lint: setup ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## measures against peers and rewrites the tables of docs/benchmarks.md and the README
	@$(BIN)/python -m benchmarks.sentences --update-docs
	@$(BIN)/python -m benchmarks.text_peers --update-docs
	@$(BIN)/python -m benchmarks.vision_peers --update-docs
	@$(BIN)/python -m benchmarks.whisper_peers --update-docs
	@$(BIN)/python -m benchmarks.footprint --update-docs

# Measures again, and says which ratios of docs/benchmarks.md lie inside the intervals that it states.
bench-check: setup ## whether the numbers of docs/benchmarks.md are still true
	@$(BIN)/python -m benchmarks.check

# Teacher, student and pruned student of docs/compression.md, trained anew, and the table of them.
zoo: setup ## trains teacher, student and pruned student of docs/compression.md anew
	@$(BIN)/python -m benchmarks.zoo

api-docs: setup ## docs/api.md, from the docstrings
	@$(BIN)/python -m tools.api_docs

golden: setup ## rewrites tests/golden from the reference implementations
	@$(BIN)/python -m tests.golden.make

# Each version of torch is installed into build/torch-range, over .venv's other packages.
torch-range: setup ## conversions beside the oldest and the newest torch that pyproject.toml admits
	@$(BIN)/python -m tools.torch_range

# Nightly; `make families` after a change of transformers' version, too. The tests take a part of it.
families: setup ## many architectures of transformers through every target; rewrites docs/families.md
	@$(BIN)/python -m tools.families

# The app in android_demo, without Gradle: compiled, tested, packaged, checked. Packages are kept in ~/.cache/edgeformer.
android: setup ## builds, tests and checks the Android app; needs Debian
	@$(BIN)/python -m android_demo.tools

# The app in ios_demo, on Debian: built and tested with Debian's Swift, the rest read and linted.
web: setup ## builds and tests the web library, and its page with two bundles, in web_demo/dist/site
	@$(BIN)/python -m web_demo.build

ios: setup ## builds, tests and checks the iOS app; needs Debian
	@$(BIN)/python -m ios_demo.tools.check

# The runtime on a Raspberry Pi that an emulator makes, compared with this machine. Kept in ~/.cache/edgeformer; needs Debian.
pi: setup ## the runtime in an emulated Raspberry Pi; needs Debian
	@$(BIN)/python -m tools.pi

# Bundles of this machine on an emulated x86 CPU without VNNI, where int8 kernels differ. Needs Debian on x86.
older-cpu: setup ## bundles on an emulated x86 CPU without VNNI; needs Debian on x86
	@$(BIN)/python -m tools.older_cpu

# A browser for the tests of the page that `serve` shows.
browser: ## installs a browser for the tests of the page that `serve` shows; needs Debian
	@command -v chromium-headless-shell chromium google-chrome >/dev/null \
	  || { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium-headless-shell; }

clean: ## removes .venv and what was built
	rm -rf .venv dist build *.egg-info runtime/*.egg-info
