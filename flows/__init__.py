"""Prefect flows: when the pipeline runs, where, and who is told."""
