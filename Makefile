# make conformance: the main job. make test: the suite's own tests. make help: the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/rocm-conformance
# The torch of some indexes brings a Triton of its own: where the pin cannot be met, it is taken.
PIP := $(BIN)/python -m pip install --quiet --no-compile -c constraints/base.txt -e '.[dev,docs,native]'
# The first release with the selector of pull request 36702, and the newest one with an edition.
SUBJECT ?= vllm==0.19.0
NEWEST ?= vllm==0.33.0
JUDGED = --subject reference --subject '$(SUBJECT)' --subject '$(NEWEST)' --problems quick
ISA_OF := --suite parity --cell 'rocm72-*' --quick
ISA := $(ISA_OF) --subject reference
ARGS ?=
SEED ?= 1
COUNT ?= 200
DIR ?= results

# Compiled Python is kept, where the environment says otherwise too: torch alone compiles for seconds.
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/build/bytecode
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install install-hip install-axe conformance matrix isa isa-vllm upstream upstream-page images report check test test-slow lint types style docs drift-page defects-page mutants bench clean

help: ## what each target does
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

install: $(VENV)/.installed ## make .venv with the suite in it

$(VENV)/.installed: pyproject.toml constraints/base.txt constraints/triton.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints/triton.txt || $(PIP)
	@touch $@

install-hip: ## clang for HIP kernels, on Debian and Ubuntu (as root)
	apt-get install --no-install-recommends -y clang-22 llvm-22 lld-22 libstdc++-12-dev

install-axe: ## axe-core from the npm registry, for the tests of the report page's accessibility
	npm install --silent --no-save --no-audit --no-fund --prefix build/axe axe-core@4.14.1

conformance: install ## judge the reference, vLLM 0.19.0 and 0.33.0 in every cell: 2 minutes on two cores (ARGS=, SUBJECT=, NEWEST=)
	$(RUN) run $(JUDGED) $(ARGS)

matrix: install ## every cell on this machine, in parallel; then the summary and the report
	$(RUN) run $(JUDGED) --results results/matrix $(ARGS); ended=$$?; $(RUN) report results/matrix && exit $$ended

# Every problem of the tier on gfx942, of vLLM's kernels too; of the other targets each a quarter,
# in another mode. Kept apart from results/: a report would miss the other quarters.
isa: isa-vllm ## AMD machine code on the CPU: kernels on four targets, a few problems (SUBJECT=)
	$(RUN) run $(ISA) --device isa:gfx942,serial,poison --results build/isa/gfx942 $(ARGS)
	$(RUN) run $(ISA) --device isa:gfx950 --shard 1/4 --results build/isa/gfx950 $(ARGS)
	$(RUN) run $(ISA) --device isa:gfx1100,serial --shard 2/4 --results build/isa/gfx1100 $(ARGS)
	$(RUN) run $(ISA) --device isa:gfx1201,poison --shard 3/4 --results build/isa/gfx1201 $(ARGS)

isa-vllm: install ## the part of isa that is about vLLM's kernels, HIP included, on gfx942
	$(RUN) run $(ISA_OF) --subject '$(SUBJECT)' --device isa:gfx942,serial,poison \
		--results build/isa/gfx942-vllm $(ARGS)

# Of both releases, in the interpreter. ARGS='--device isa:gfx942': more.
upstream: install ## vLLM's own attention tests on a simulated GPU: 15 minutes on two cores (ARGS=, SUBJECT=, NEWEST=)
	$(RUN) upstream --subject '$(SUBJECT)' --subject '$(NEWEST)' $(ARGS)

# The emulated part is a sample: it would take hours.
upstream-page: install ## vLLM's own tests whole, and the page of what they came to
	-$(RUN) upstream --subject '$(SUBJECT)' --subject '$(NEWEST)' --results results/upstream/interpreter
	-$(RUN) upstream --subject '$(SUBJECT)' --subject '$(NEWEST)' --device isa:gfx942 --sample 1 --limit 60 \
		--results results/upstream/isa
	$(RUN) upstream --results results/upstream --page docs/reference

images: install ## the images of every stack (ARGS='--cpu --base IMAGE rocm72')
	$(RUN) images build $(ARGS)

report: install ## merge the results below DIR (results) into DIR/report
	$(RUN) report $(DIR) $(ARGS)

check: install ## lint, types, and the tests of the rooms that a change touched (BASE=main)
	$(MAKE) --no-print-directory lint
	@rooms=$$($(BIN)/python -m tests.support.changed_rooms $(BASE)); \
		if [ -z "$$rooms" ]; then echo "no room was touched: no tests to run"; else \
		echo "tests of:" $$rooms; \
		$(BIN)/python -m pytest -n 2 --dist loadgroup $$rooms $(ARGS); fi

test: install ## the suite's own tests
	$(BIN)/python -m pytest tests -n 2 --dist loadgroup $(ARGS)

test-slow: install ## tests that take long, and the rest of the seeded faults
	$(BIN)/python -m pytest tests -n 2 --dist loadgroup -m slow $(ARGS)

lint: types style ## ruff and strict types

types: install
	$(BIN)/mypy

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/hadolint images/Dockerfile
	$(BIN)/shellcheck .ci/* buildkite/*.sh images/steps/*.sh
	$(RUN) images bake --check
	$(RUN) pipeline | $(BIN)/check-jsonschema --builtin-schema vendor.buildkite -
	$(BIN)/check-jsonschema --builtin-schema vendor.buildkite buildkite/releases.yaml buildkite/change.yaml \
		buildkite/mutants.yaml buildkite/served.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml

docs: install ## the site, in site/ (every warning is an error)
	$(BIN)/sphinx-build -W --keep-going -q -d build/doctrees docs site

drift-page: install ## the pages of the site that say what each release changed
	$(RUN) drift --write docs/reference

# The newest of each series.
RELEASES := 0.18.1 0.19.0 0.20.2 0.21.0 0.22.1 0.23.0 0.24.0 0.25.1 0.26.0 0.27.1 0.28.0 0.29.0 \
	0.30.0 0.31.0 0.32.0 0.33.0

defects-page: install ## the page of the site that says which release has which known defect
	$(RUN) defects $(RELEASES:%='vllm==%') --write docs/reference

mutants: install ## put code wrong on purpose, count what is noticed, and write the page (SEED=, COUNT=, ARGS=)
	$(RUN) mutants --seed $(SEED) --count $(COUNT) --write docs/reference $(ARGS)

bench: install ## selections a second, what AMD targets execute; kernels, where there is a GPU (ARGS='--vllm FOLDER')
	$(RUN) bench --subject '$(SUBJECT)'
	$(RUN) bench-isa
	$(RUN) bench-tiles $(ARGS)
	$(RUN) bench-kernels $(ARGS) || test $$? -eq 75

clean: ## remove what make made
	rm -rf $(VENV) .tox results build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
