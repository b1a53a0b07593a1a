"""The composition root: the only package that knows all the others. `compose` turns a recipe into a run."""
