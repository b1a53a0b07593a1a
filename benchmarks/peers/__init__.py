"""Foveate beside the trainers that people use today: same tiny models, same samples, one thread each. See benchmarks/README.md."""
