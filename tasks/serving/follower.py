"""Follows the current release: loads a new one beside the old, then swaps in one assignment."""

import asyncio
import logging
from concurrent.futures import Executor
from dataclasses import dataclass

from tasks.errors import VisionloopError
from tasks.params import Settings
from tasks.releases import Release, current
from tasks.schema import Serve
from tasks.serving.model import ServedModel, load_model

POLL_SECONDS = 1.0
_RETRY_POLLS = 30  # a refused release is tried again: the cause may have been the machine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A release that was not loaded, and why; the one before it goes on serving."""

    version: int | None
    reason: str


class Follower:
    """Holds the model in service; `follow` keeps it the current release.

    A release that cannot be loaded is logged once, shown as `refused`, and changes nothing.
    """

    def __init__(self, settings: Settings, params: Serve, executor: Executor) -> None:
        self.model: ServedModel | None = None
        self.refused: Refused | None = None
        self._settings = settings
        self._params = params
        self._executor = executor
        self._seen: Release | None = None
        self._polls = 0

    @property
    def reason(self) -> str:
        """Why there is no model, in words for a person."""
        if self.refused is not None:
            return self.refused.reason
        return f"no release in {self._settings.releases} yet; `visionloop run` promotes the first"

    async def follow(self) -> None:
        """Poll for ever."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Look once, and load what is new."""
        self._polls += 1
        release: Release | None = None
        try:
            release = await asyncio.to_thread(current, self._settings)
            if release is None or not self._wanted(release):
                return
            self._seen = release
            model = await asyncio.to_thread(
                load_model, release, self._settings, self._params, self._executor
            )
        except Exception as error:
            self._refuse(release, error)
            return
        self.model, self.refused = model, None
        log.info("serving version %d (%s)", model.version, model.bundle.digest[:12])

    def _wanted(self, release: Release) -> bool:
        retry = self.refused is not None and self._polls % _RETRY_POLLS == 0
        return release != self._seen or retry

    def _refuse(self, release: Release | None, error: Exception) -> None:
        version = release.version if release else None
        refused = Refused(version, str(error) or type(error).__name__)
        if refused != self.refused:
            serving = f"version {self.model.version}" if self.model else "nothing"
            trace = None if isinstance(error, VisionloopError) else error
            log.error(
                "release refused, still serving %s: %s", serving, refused.reason, exc_info=trace
            )
        self.refused = refused
