"""Evidence on the frozen test split, and the release bundle that carries it."""
