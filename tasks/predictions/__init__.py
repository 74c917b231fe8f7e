"""The prediction log: what the server predicted, and every drift check made on it.

SQLAlchemy Core over SQLite (write-ahead log, one machine) or PostgreSQL, by address. The
server appends in batches; the drift check reads a window and records its outcome here.
"""

from tasks.predictions.checks import Check
from tasks.predictions.log import Prediction, PredictionLog, Window, open_log

__all__ = ["Check", "Prediction", "PredictionLog", "Window", "open_log"]
