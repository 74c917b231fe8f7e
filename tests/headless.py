"""A real browser without a window, by its own protocol over a pipe: no driver, no dependency.

Every message of the console and every request of a page is kept, so a test can say that there
were none. The protocol: https://chromedevtools.github.io/devtools-protocol
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# Of Debian and others. The sandbox of Chromium does not run for root, in containers of CI.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
QUIET = ("--disable-background-networking", "--no-first-run", "--remote-debugging-pipe")


class Browser:
    """One page of a headless Chromium; `messages` and `requests` are those since `open`."""

    def __init__(self, program: str, profile: Path) -> None:
        reads, self._send = os.pipe()
        self._receive, writes = os.pipe()
        # The protocol's pipe is file descriptor 3 to read from and 4 to write to.
        shell = ("bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", program)
        self._process = subprocess.Popen(
            [*shell, *FLAGS, *QUIET, f"--user-data-dir={profile}"],
            pass_fds=(reads, writes),
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._left, self._number = b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method of the protocol; what happens meanwhile is kept as events."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def open(
        self, page: Path, width: int = 1280, scheme: str = "light", media: str = "screen"
    ) -> None:
        """Open a file in a window so many pixels wide, in the scheme light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self._events = []
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())

    @property
    def messages(self) -> list[str]:
        """What the page has written to the console, errors of its own and of the browser."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self._events if e.get("method") in kinds]

    @property
    def requests(self) -> list[str]:
        """The addresses asked for beside the page itself, but for images that it carries."""
        sent = [e for e in self._events if e.get("method") == "Network.requestWillBeSent"]
        found = [event["params"]["request"]["url"] for event in sent]
        return [address for address in found[1:] if not address.startswith("data:")]

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']['text']}")
        return found["result"].get("value")

    def unreadable(self) -> list[str]:
        """Texts with less contrast than WCAG's AA asks for, each with its ratio."""
        return list(self.value(Path(__file__).with_name("contrast.js").read_text()))

    def press(self, key: str) -> None:
        """Press and release a key, by its name, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what is seen, or the `whole` page, as PNG."""
        found = self.call(
            "Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole)
        )
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page printed on A4, with the colours of its backgrounds only where it asks."""
        printed = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(printed["data"])

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._send)
        os.close(self._receive)

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._receive, 1 << 20)
            if not more:
                raise RuntimeError("the browser has ended")
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        return dict(json.loads(message))


def start_browser(profile: Path) -> Browser:
    """A browser of this machine; without one the test is skipped, but fails in CI."""
    program = next((found for found in map(shutil.which, NAMES) if found), None)
    if program is None:
        need = pytest.fail if os.environ.get("CI") else pytest.skip
        need(f"none of {', '.join(NAMES)} is installed")
    return Browser(program, profile)
