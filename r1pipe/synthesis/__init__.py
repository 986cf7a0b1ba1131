"""Chains of thought from a teacher, and the filters they must pass."""
