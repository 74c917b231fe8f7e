"""Scores of predictions with their intervals, and whether probabilities mean what they say."""
