"""The nodes of dvc.yaml: one module each, wiring only."""

import os

# Before torch loads its OpenMP: threads that spin at barriers slow a stage tenfold as soon as another process is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
