"""Recipes of other trainers become Foveate recipes. Every key of theirs ends in one note: nothing is dropped in silence."""
