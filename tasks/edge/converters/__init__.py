"""Scripts that run in an environment of their own, each with the packages that it needs pinned."""
