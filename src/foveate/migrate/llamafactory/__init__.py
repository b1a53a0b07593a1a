"""LLaMA-Factory's supervised fine-tuning recipes."""
