"""Charts of the HTML pages as inline SVG: no script, no request, colours from style.css.

Every function takes plain numbers and gives markup. Text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 520.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 78.0, 16.0, 14.0, 44.0
_BINS = 40
_OUTER = 0.1  # percent of the values at either end that a histogram does not stretch for
_LEAST = 1.5  # a bar that counts anything is at least this high, or nobody sees it


@dataclass(frozen=True)
class Series:
    """One line or one set of points; `style` is a class of the style sheet (s1 … s4, muted)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "s1"
    line: bool = True
    labels: Sequence[str] = ()


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    limits: tuple[float, float] | None = None,
    shares: bool = False,
) -> Markup:
    """A line or scatter chart; `limits` fixes both axes, `shares` shows y as a percentage."""
    x_low, x_high = limits or _limits([value for part in series for value in part.x])
    y_low, y_high = limits or _limits([value for part in series for value in part.y])
    scale = _Scale(x_low, x_high, y_low, y_high, shares)
    body = [_axes(scale, x_label, y_label)]
    body += [_draw(part, scale) for part in series]
    return _figure(title, body, [(part.style, part.name) for part in series])


def histogram(
    title: str,
    x_label: str,
    parts: Sequence[tuple[str, str, npt.NDArray[np.float64]]],
    threshold: float | None = None,
) -> Markup:
    """How values are distributed: bars of `parts` (style, name, values) on top of each other.

    The range holds 99.8 % of the values and the threshold, which is drawn; what lies beyond it
    is counted in the first and last bar.
    """
    finite = [(style, name, values[np.isfinite(values)]) for style, name, values in parts]
    low, high = _range(np.concatenate([values for *_, values in finite]), threshold)
    edges = np.linspace(low, high, _BINS + 1)
    counts = np.array([np.histogram(np.clip(values, low, high), edges)[0] for *_, values in finite])
    tops = counts.cumsum(axis=0)
    scale = _Scale(low, high, 0.0, max(5.0, 1.04 * tops.max()), shares=False)
    body = [_axes(scale, x_label, "images")]
    for (style, name, _), tall, top in zip(finite, counts, tops, strict=True):
        body += [
            _bar(scale, style, (edges[i], edges[i + 1]), (top[i] - tall[i], top[i]), name)
            for i in np.flatnonzero(tall)
        ]
    if threshold is not None:
        body.append(_limit(scale, threshold))
    return _figure(title, body, [(style, name) for style, name, _ in finite])


def _figure(title: str, body: Sequence[Markup], keys: Sequence[tuple[str, str]]) -> Markup:
    legend = Markup("").join(
        Markup('<span class="key {}"><i></i>{}</span>').format(style, name)
        for style, name in keys
        if len(keys) > 1
    )
    return Markup(
        '<figure><figcaption>{}</figcaption><svg viewBox="0 0 {:g} {:g}" role="img" '
        'aria-label="{}">{}</svg><div class="legend">{}</div></figure>'
    ).format(title, _WIDTH, _HEIGHT, title, Markup("").join(body), legend)


def _range(values: npt.NDArray[np.float64], threshold: float | None) -> tuple[float, float]:
    ends = [] if threshold is None else [threshold]
    if len(values):
        ends += np.percentile(values, [_OUTER, 100 - _OUTER]).tolist()
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):  # all values are one
        span = max(abs(high) * 2, 0.2)
        return low - span / 20, high + span / 20
    if threshold is not None:  # room on both sides: what is flagged must not lie on the line
        low, high = min(low, threshold - span / 20), max(high, threshold + span / 20)
    return low, high


def _bar(
    scale: "_Scale", style: str, across: Sequence[float], up: Sequence[float], name: str
) -> Markup:
    left, right = (scale.x(value) for value in across)
    bottom, top = (scale.y(value) for value in up)
    return Markup(
        '<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}">'
        "<title>{:.4g} to {:.4g}: {:,} {}</title></rect>"
    ).format(
        style, left, min(top, bottom - _LEAST), round(right - left - 0.6, 1),
        round(max(bottom - top, _LEAST), 1), *across, int(up[1] - up[0]), name,
    )  # fmt: skip


def _limit(scale: "_Scale", threshold: float) -> Markup:
    x = scale.x(threshold)
    right = x > _WIDTH / 2
    return Markup(
        '<line class="limit" x1="{x:g}" x2="{x:g}" y1="{:g}" y2="{:g}"/>'
        '<text x="{:g}" y="{:g}" text-anchor="{}">threshold {:.4g}</text>'
    ).format(
        _TOP, _HEIGHT - _BOTTOM, x + (-6 if right else 6), _TOP + 9,
        "end" if right else "start", threshold, x=x,
    )  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    shares: bool

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _draw(part: Series, scale: _Scale) -> Markup:
    points = [
        (scale.x(x), scale.y(y))
        for x, y in zip(part.x, part.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    body = Markup("")
    if part.line:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        body += Markup('<polyline class="{}" points="{}"/>').format(part.style, path)
    if part.style != "muted":
        radius = 3 if part.line else 5
        body += Markup("").join(
            Markup('<circle class="{}" cx="{:g}" cy="{:g}" r="{}"/>').format(
                part.style, x, y, radius
            )
            for x, y in points
        )
    return body + _labels(part.labels, points)


def _labels(labels: Sequence[str], points: list[tuple[float, float]]) -> Markup:
    """Names beside their points; one that would cover another moves down."""
    body, taken = Markup(""), list[tuple[float, float]]()
    for label, (x, y) in sorted(zip(labels, points, strict=False), key=lambda pair: pair[1][1]):
        right = x > _WIDTH * 0.7
        x += -9 if right else 9
        while any(abs(y - other) < 13 and abs(x - at) < 120 for at, other in taken):
            y += 3
        taken.append((x, y))
        body += Markup('<text x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(
            x, y + 4, "end" if right else "start", label
        )
    return body


def _axes(scale: _Scale, x_label: str, y_label: str) -> Markup:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    body = Markup("")
    for tick in _ticks(scale.y_low, scale.y_high):
        body += Markup(
            '<line class="grid" x1="{:g}" x2="{:g}" y1="{y:g}" y2="{y:g}"/>'
            '<text x="{:g}" y="{:g}" text-anchor="end">{}</text>'
        ).format(
            _LEFT,
            right,
            _LEFT - 7,
            scale.y(tick) + 4,
            _tick_text(tick, scale.shares),
            y=scale.y(tick),
        )
    for tick in _ticks(scale.x_low, scale.x_high):
        body += Markup('<text x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(
            scale.x(tick), bottom + 17, f"{tick:.6g}"
        )
    return body + Markup(
        '<line class="axis" x1="{left:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>'
        '<text class="label" x="{:g}" y="{:g}" text-anchor="middle">{}</text>'
        '<text class="label" transform="translate(13 {:g}) rotate(-90)" text-anchor="middle">'
        "{}</text>"
    ).format(
        (_LEFT + right) / 2, _HEIGHT - 6, escape(x_label), bottom / 2 + 7, escape(y_label),
        left=_LEFT, right=right, bottom=bottom,
    )  # fmt: skip


def _tick_text(value: float, share: bool) -> str:
    return f"{100 * value:.5g} %" if share else f"{value:.5g}"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened so that no point lies on the frame."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    margin = (high - low) * 0.06 or max(abs(high) * 0.1, 0.01)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the ends."""
    rough = (high - low) / 5
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
