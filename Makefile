# Two commands matter: `make book` and `make test`. `make help` lists the others.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SITE := _build/.site

files = $(shell find $(1) -type f -not -path '*/__pycache__/*' -not -path '*/.ipynb_checkpoints/*' \
	-not -path '*.egg-info/*' 2>/dev/null)

.PHONY: help book serve lab test bench gpu-check refresh assignments grade check-classroom retarget clean

help:  ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

book: $(SITE)  ## Execute every chapter and build the site in _build/html
	@echo "The book is in _build/html. Read it with: make serve"

serve: $(SITE)  ## Show the site on http://127.0.0.1:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

lab: $(INSTALLED)  ## Open the chapters in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=chapters

# One thread each: two workers with two threads each would wait for each other. A third one gained
# nothing on two cores, and a cluster's worker took minutes to start.
test: $(SITE)  ## Run every check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(INSTALLED)  ## Measure the run time of the build, chapters, engine and training
	$(BIN)/python -m tools.bench_execute
	$(BIN)/python -m tools.bench_chapters
	$(BIN)/python -m tools.bench_engine
	$(BIN)/python -m tools.bench_training

gpu-check: $(INSTALLED)  ## Compare a CUDA device with the CPU and measure it
	$(BIN)/python -m tools.gpu_check

refresh: $(INSTALLED)  ## Execute all chapters in place and write what pages take from them
	$(BIN)/python -m tools.refresh
	$(BIN)/python -m tools.claims

assignments: $(INSTALLED)  ## Make student notebooks, solutions and autograders from the masters
	$(BIN)/python -m tools.classroom.generate

grade: assignments  ## Grade a class: SUBMISSIONS=folder [ASSIGNMENT=name] [OUT=folder] [UNSANDBOXED=yes]
	$(BIN)/python -m tools.classroom.grade $(SUBMISSIONS) $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) \
		$(if $(OUT),--out $(OUT)) $(if $(UNSANDBOXED),--unsandboxed)

check-classroom: $(INSTALLED)  ## Check every assignment and the grader against wrong and hostile notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m classroom -n 2 --dist worksteal tests/classroom

retarget: $(INSTALLED)  ## Change the repository's address everywhere: URL=https://github.com/...
	$(BIN)/python -m tools.address $(URL)

clean:  ## Remove what was built, but not .venv
	rm -rf _build .pytest_cache .hypothesis .ruff_cache

$(INSTALLED): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,book,test,cluster,classroom]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(ORACLES)
	touch $@

# Tests compare with curvlinops. Of its own requirements one asks for torchvision, and torch again.
ORACLES := curvlinops-for-pytorch backpack-for-pytorch einconv einops jaxtyping linear-operator \
	opt-einsum unfoldNd wadler-lindig

# What makes a chapter's cached result stale stands in tools/execute.py.
$(SITE): $(INSTALLED) _config.yml _toc.yml $(call files,chapters data lib) \
		tools/execute.py tools/filled.py tools/refresh.py tools/site_fixes.py
	$(BIN)/python -m tools.execute
	@echo "Building the site takes about half a minute."
	$(BIN)/jupyter-book build . --all --quiet --warningiserror --keep-going
	touch $@
