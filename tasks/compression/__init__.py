"""Compression: export, distillation, pruning, quantization, measurement and choice."""
