"""The rooms of `foveate rehearse`: the tiny model, the chosen records, the recipe as it is rehearsed, the child processes, the reload."""
