"""The versions of the data that DVC keeps: read at a revision, verified, repaired.

With tasks.pipeline the only place that calls DVC.
"""
