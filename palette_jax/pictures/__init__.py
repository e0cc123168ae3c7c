"""Picture files: the only reader and writer of the package."""
