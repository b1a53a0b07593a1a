"""Where records come from: every kind of file, folder and repository, by number."""
