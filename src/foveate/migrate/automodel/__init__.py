"""NeMo Automodel's VLM recipes."""
