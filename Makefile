.PHONY: check test live explore bench demo pictures torture adversary format clean

check: ## style, types, imports and the fast tests: under a minute
	@./test --fast

test: ## everything
	@./test

explore: ## crashes of every case on files and of every recovery, damage, races; bounded in time, LONG=1: every crash
	@.ci/setup.sh dev
	@.venv/bin/python -m sim.explore.command $(if $(LONG),,--within 110)
	@.venv/bin/python -m sim.explore.command --generated $(if $(LONG),,--seconds 12)
	@.venv/bin/python -m sim.explore.command --generated --cuts 6 --on lvm --on nfs --on files --seconds $(if $(LONG),120,10)
	@.venv/bin/python -m sim.explore.command --damage 0
	@.venv/bin/python -m sim.explore.command --races 1
	@.venv/bin/python -m sim.explore.command --races 1 --profile nfs

live: ROUNDS := 1000
live: FORMAT := local
live: ## verbs beside a machine that runs, with kills: ROUNDS=1000 FORMAT=local|nfs|lvm SEED=…; local: every step of the model too
	@.ci/setup.sh dev
	@if [ "$(FORMAT)" = local ]; then \
		.venv/bin/python -m tests.live.rounds --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) && \
		.venv/bin/python -m tests.live.groups --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) && \
		.venv/bin/python -m sim.explore.together.groups && \
		.venv/bin/python -m sim.explore.together.live && \
		.venv/bin/python -m sim.explore.together.quiescing && \
		.venv/bin/python -m sim.explore.together.rebuilds; \
	else \
		.venv/bin/python -m tests.lab.live --format $(FORMAT) --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)); \
	fi

bench: ## measure; on an otherwise idle machine
	@.ci/setup.sh dev
	@.venv/bin/python -m pytest -o norecursedirs='.*' -o python_files='test_*.py bench_*.py' -m bench -s tests/bench

demo:
	@./demo

pictures: ## draw the pictures and the film of the documentation anew, from the real console
	@.ci/setup.sh dev
	@.venv/bin/python -m tests.console.pictures

ROUNDS ?= 30
FORMAT ?= nfs
torture: ## random operations on hosts that are killed and frozen: ROUNDS=30 FORMAT=nfs|lvm|local SEED=…
	@.ci/setup.sh dev
	@.venv/bin/diskwright lab torture --rounds $(ROUNDS) --format $(FORMAT) $(if $(SEED),--seed $(SEED))

MINUTES ?= 10
adversary: FORMAT := local
adversary: ## an outside tester of the real commands, with kills, machines, damage: MINUTES=10 FORMAT=local|nfs|lvm SEED=… PLOTS=…
	@.ci/setup.sh dev
	@.venv/bin/python -m tests.adversary --minutes $(MINUTES) --format $(FORMAT) $(if $(SEED),--seed $(SEED)) $(if $(PLOTS),--only $(PLOTS))

STATES ?= 500
ON ?= ext4
powercut: ## power cuts of a real kernel, by replay of what it wrote: STATES=500 ON=ext4|xfs|lvm SEED=…
	@.ci/setup.sh dev
	@.venv/bin/diskwright lab powercut --states $(STATES) --on $(ON) $(if $(SEED),--seed $(SEED))

format: ## put the code in its one form
	@.ci/setup.sh dev
	@.venv/bin/ruff check --fix --quiet
	@.venv/bin/ruff format --quiet

clean: ## remove what set-up and tools made; the next start makes it again
	rm -rf .venv .setup.lock .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
