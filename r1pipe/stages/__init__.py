"""The nodes of dvc.yaml: one module each, wiring only."""
