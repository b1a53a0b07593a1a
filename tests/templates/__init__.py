"""Well-known published chat templates, written anew from what their documents say of them, with each family's special tokens."""
