"""Rooms made from rules, written as ScanNet and the benchmarks publish theirs."""

from r1pipe.procedural.rooms import write_rooms

__all__ = ["write_rooms"]
