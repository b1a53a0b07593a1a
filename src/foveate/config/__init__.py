"""The recipe: typed, validated, torch-free."""
