"""Speed as ratios, each measured in one run on one machine against a plain formulation that is the reference for both
time and result. ``python -m benchmarks`` runs all and writes ``docs/benchmarks.md``."""
