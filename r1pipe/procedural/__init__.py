"""Rooms made from rules, written as ScanNet and the benchmarks publish theirs."""
