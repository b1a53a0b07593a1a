"""What `foveate check` looks at, one module for each subject."""
