"""The named data sets, one module for each kind. `adapters/named.py` finds them by name."""
