"""Speed on a GPU: backbones, whole detectors and training, in each precision and memory layout.

``python -m benchmarks --device cuda`` runs all; with ``--write`` it writes ``docs/benchmarks_gpu.md``. Where torch sees
no CUDA device it says so in a line and ends."""
