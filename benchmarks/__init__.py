"""Speed as ratios, each measured in one run on one machine against a plain formulation that is the reference for both
time and result; for whole detectors, key slices per second and memory. ``python -m benchmarks --write`` runs all and
writes ``docs/benchmarks.md``."""
