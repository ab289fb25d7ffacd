"""Benchmarks against LAPACK and installed peers; `randla bench` and benchmarks/ run what is here."""
