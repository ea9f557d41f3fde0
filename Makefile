# One command each. Every target makes the virtual environment it needs: a Python >= 3.11 and make are all a fresh machine
# must have. ARGS goes to the program behind the target: make test ARGS='-k address'.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready-for-unimq
PYTEST_JOBS ?= 4
ARGS ?=
LEDGER := tests/conformance/test_memory.py tests/broker/test_amqp_conformance.py integration/conformance/test_rabbitmq.py

.PHONY: help demo test check proofs proofs-worker conformance integration bench docs generate clean
.DEFAULT_GOAL := help

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml tools/venv.sh
	@tools/venv.sh $(VENV)
	@touch $@

demo: $(READY)  ## the same program on memory://, on the reference broker and, where UNIMQ_URL is set, on that broker
	$(PY) examples/demo.py

test: $(READY)  ## all tests that need no broker; the slower proofs in their short form
	UNIMQ_SHORT=1 $(PY) -m pytest -q -n $(PYTEST_JOBS) --dist worksteal $(ARGS)

proofs: $(READY)  ## the slower proofs in full: fuzz, byte sweep, half-open, crowd, cycles, secrets, kill; a RabbitMQ by URL or native
	$(PY) -m pytest -q tests/proofs tests/wire tests/broker/sessions tests/broker/data/test_kill.py integration/proofs $(ARGS)

proofs-worker: $(READY)  ## the worker's proofs in full: killed, cut off, poisoned, stopped; on ours and on a RabbitMQ
	$(PY) -m pytest -q integration/proofs_worker $(ARGS)

check: $(READY)  ## ruff, mypy strict, generated files, tidy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) tools/unasync.py --check
	$(PY) tools/promises.py --check
	$(PY) tools/diagrams.py --check
	$(PY) -m pytest -q tests/test_tidy.py

conformance: $(READY)  ## the ledger: which promise holds in memory, on the reference broker and on a real RabbitMQ, if there is one
	$(PY) -m unimq.testing.ledger $(or $(ARGS),$(LEDGER))

integration: $(READY)  ## real brokers: by URL, container or native process; UNIMQ_REQUIRE names those that must be there
	$(PY) -m pytest -q integration $(ARGS)

bench: $(READY)  ## against the raw client, interleaved
	$(PY) -m bench $(or $(ARGS),rabbitmq)

docs: $(READY)  ## runs every code block of README and docs
	$(PY) -m pytest -q tests/test_docs.py $(ARGS)

generate: $(READY)  ## the sync twin from the async source, the tables of promises, the pictures of the state machines
	$(PY) tools/unasync.py
	$(PY) tools/promises.py
	$(PY) tools/diagrams.py

clean:  ## all that was made, the virtual environment too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
