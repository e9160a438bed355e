"""Reproducible benchmarks: `mvpose benchmark NAME` prints a table and writes JSON."""
