"""Training: architectures, augmentation, the loop with its checkpoints, and the sweep."""
