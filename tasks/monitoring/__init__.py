"""Watches the model in production: compares what is served with what was proved."""
