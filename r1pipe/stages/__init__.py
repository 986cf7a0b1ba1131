"""The nodes of dvc.yaml: one module each, wiring only."""

import os

# Before torch loads its OpenMP (GNU's). At a barrier a thread spins 300,000 times by default, which slows a stage tenfold
# as soon as another process is busy; after 1,000 a stage runs as fast on an idle machine, and gets its share of a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
