"""`visionloop report`: where a bundle's report is, what it says first, and how to look at it.

Where the gate compared the bundle with a champion, the report is the copy that says what changes.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.bundle import BUILT, named_bundle
from tasks.bundle import CARD, Bundle, open_bundle
from tasks.params import Settings
from tasks.registry.champion_report import Pages, pages_of


@dataclass(frozen=True)
class Found:
    """A verified bundle, and what there is to read on it."""

    bundle: Bundle
    pages: Pages

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "bundle": str(self.bundle.path),
            "digest": self.bundle.digest,
            "report": str(self.pages.report),
            "signed_report": str(self.pages.signed),
            "card": str(self.pages.signed.with_name(CARD)),
            "comparisons": [str(path) for path in self.pages.comparisons],
            "verdict": verdict_of(self.bundle),
            "remarks": remarks_of(self.bundle),
        }


def find(name: str | None, settings: Settings) -> Found:
    """The pages on a named bundle, data/bundle when there is no name; raises BundleError."""
    bundle = named_bundle(name, settings) if name else open_bundle(BUILT, settings)
    return Found(bundle, pages_of(bundle, settings))


def show(found: Found, console: Console) -> None:
    """The verdict, what must be known before trusting it, and the pages."""
    console.print(Text(verdict_of(found.bundle)))
    for remark in remarks_of(found.bundle):
        console.print(Text(f"· {remark}"))
    pages = found.pages
    console.print(f"report: {pages.report.as_uri()}", soft_wrap=True)
    if pages.filled:
        signed = f"as signed, without the champion: {pages.signed.as_uri()}"
        console.print(signed, soft_wrap=True)
    for path in pages.comparisons:
        console.print(f"comparison: {path.as_uri()}", soft_wrap=True)


def look(page: Path) -> str | None:
    """Open a page in the browser; without one, gives what to say instead."""
    opened = webbrowser.open(page.resolve().as_uri())
    return None if opened else f"no browser here; the page is {page.resolve()}"


def verdict_of(bundle: Bundle) -> str:
    """The deployed model and its figures in a sentence."""
    info, measured = bundle.info, bundle.info.measurements
    return (
        f"{info.architecture}, {info.technique}: {measured.accuracy:.1%} of the test images right "
        f"({measured.accuracy_low:.1%} to {measured.accuracy_high:.1%}), fp32 "
        f"{measured.fp32_accuracy:.1%}; {measured.latency_ms:.3g} ms an image on "
        f"{info.runtime.title}, {measured.size_bytes / 1e6:.2f} MB"
    )


def remarks_of(bundle: Bundle) -> list[str]:
    """What a reader must know first; [] of bundles from before metrics.json."""
    return list((bundle.metrics() or {}).get("remarks", []))
