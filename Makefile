# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
READY := $(VENV)/ready

# EGL and Mesa draw people without a display: what `mvpose dataset render` and its tests need of the system.
EGL := libegl1 libegl-mesa0 libgl1-mesa-dri

.PHONY: demo test lint clean egl

demo: $(READY)
	$(VENV)/bin/python jobs/demo.py

# Twice a worker died near the end, once with a core: a thread had overflowed its stack in the dynamic loader. Symbols are
# therefore bound when libraries are loaded. A worker that dies ends the run: pytest-xdist would wait for its last file.
test: lint egl
	LD_BIND_NOW=1 $(VENV)/bin/pytest -n 2 --dist loadfile --max-worker-restart=0

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "mvpose needs Python 3.11: install it (Debian: apt-get install python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing: apt-get install python3.11-venv"; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

egl:
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libEGL.so.1"); ctypes.CDLL("libGL.so.1")' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq $(EGL) libgl1; } || \
		{ echo "mvpose draws people with EGL and Mesa, which are missing: apt-get install $(EGL) libgl1"; exit 1; }

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .hypothesis
