# Two commands are enough: `make run` and `make test`. Everything that they create is in .venv, .tox and var,
# but for __pycache__: the tests start hundreds of processes, and each would compile Meter anew.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.DELETE_ON_ERROR:
.PHONY: help run test chaos install-check upgrade-check screenshots benchmark-faults deb dev setup-run setup-test clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

run: setup-run ## run Meter on this host: libvirt, store and API in one process; Ctrl-C stops it
	@etc/dev/foreground $(VENV)/bin/twistd -n --pidfile= --logger=meter.daemon.logs.text_lines meter --config etc/run.toml

test: setup-test ## check everything: style, types, tests, package, documentation
	@$(VENV)/bin/tox

chaos: setup-test $(VENV)/.dev ## inject faults into real servers and daemons, count lost and duplicate samples (some twenty-five minutes)
	@etc/dev/system-packages $(PYTHON) chaos
	@$(VENV)/bin/python -m tests.chaos

install-check: setup-test $(VENV)/.dev ## do what docs/install.rst says, on clean machines made for it; as root (twenty minutes)
	@etc/dev/system-packages $(PYTHON) install
	@$(VENV)/bin/python -m tests.install

upgrade-check: setup-test $(VENV)/.dev ## upgrade a running site from an earlier commit (FROM=rev), and restore backups of it (fifteen minutes)
	@etc/dev/system-packages $(PYTHON) upgrade
	@$(VENV)/bin/python -m tests.upgrade $(FROM)

screenshots: setup-test ## take the pictures in docs/images of a demo cloud, and look at all pages at several sizes (ten minutes)
	@$(VENV)/bin/tox -e screenshots

benchmark-faults: setup-test ## run each benchmark with a fault that it must notice (ten minutes)
	@$(VENV)/bin/tox -e benchmark-faults

deb: ## build the Debian package, for the release of Debian that this runs on, into dist
	@etc/dev/system-packages /usr/bin/python3 deb
	@etc/debian/build dist

dev: $(VENV)/.dev ## prepare .venv to run single tests and tools by hand

setup-run: $(VENV)/.run ## only prepare `make run`

setup-test: $(VENV)/.test ## only prepare `make test`
	@etc/dev/system-packages $(PYTHON) test

clean: ## remove what was built; the data in var stay
	rm -rf $(VENV) .tox build dist docs/_build *.egg-info .hypothesis .*_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Meter needs Python 3.11 or later; select one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@etc/dev/system-packages $(PYTHON) run
	$(PYTHON) -m venv $(VENV)
	@# Dependency groups need pip 25.1 or later.
	$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/.run: setup.py pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[all]'
	@touch $@

$(VENV)/.dev: setup.py pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[all]' --group dev
	@touch $@ $(VENV)/.run $(VENV)/.test

$(VENV)/.test: | $(VENV)/bin/python
	$(PIP) install 'tox>=4.30'
	@touch $@
