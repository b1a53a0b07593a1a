"""Foveate fine-tunes vision-language models from one YAML recipe; every label and every sample is accounted for."""

__version__ = "0.1.0"
