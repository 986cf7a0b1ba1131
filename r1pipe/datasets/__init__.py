"""Samples, and the readers that make them from the files that the benchmarks' authors publish."""

from r1pipe.datasets.sample import Pose, Sample

__all__ = ["Pose", "Sample"]
