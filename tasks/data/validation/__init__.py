"""Declared expectations, how they are run, and those that Great Expectations does not have."""
