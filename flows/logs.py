"""The log lines of the steps in the Prefect UI, live, beside Prefect's own."""

import logging

from prefect.logging.handlers import APILogHandler

LOGGERS = ("flows", "tasks")


def log_to_prefect() -> None:
    """Send what our loggers say at INFO and above to the run that is under way.

    `[tool.prefect] logging.extra_loggers` would not do: it sets no level, and a worker's
    process starts outside the repository, where the setting is not read.
    """
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            logger.addHandler(APILogHandler())
