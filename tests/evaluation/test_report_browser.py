"""The report and the comparison in a real browser: offline, on a phone, printed, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from headless import Browser, start_browser
from ruamel.yaml import YAML
from small_pipeline import Network, write_candidates, write_shards

from tasks.bundle import open_bundle
from tasks.evaluation.comparison_page import render_comparison
from tasks.evaluation.evaluate import main
from tasks.evaluation.side_by_side import Side, side_by_side
from tasks.params import Settings, load_params

pytestmark = pytest.mark.browser

# Tables that scroll sideways in a box of their own; a matrix may.
SCROLLED = """
[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)
  .map(box => box.querySelector('table').className)
"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = start_browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def pages(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built once: the report on real digits, one on a thousand classes, a comparison."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copytree(built, root / "digits")
    shutil.copytree(built, root / "large")
    _many_classes(root / "large")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("digits", "large"):
            patch.setenv("VISIONLOOP_HOME", str(root / "home"))
            patch.chdir(root / name)
            main()
        patch.chdir(root / "digits")
        _compare(root / "comparison.html", root / "home")
    reports = {name: root / name / "data/bundle/report.html" for name in ("digits", "large")}
    return reports | {"comparison": root / "comparison.html"}


def _many_classes(root: Path) -> None:
    """Shards and candidates of a thousand classes with two test images each."""
    yaml, params = YAML(), root / "conf/params.yaml"
    values = yaml.load(params)
    values["evaluate"]["robustness"]["enabled"] = False
    yaml.dump(values, params)
    rng = np.random.default_rng(0)
    names = tuple(f"species-{i:04d}-of-some-genus" for i in range(1000))
    images = rng.integers(0, 256, (2000, 16, 16, 3), np.uint8)
    splits = dict.fromkeys(("train", "validation", "test"), (images, np.arange(2000) % 1000))
    write_shards(root / "data/shards", splits, names)
    layers = rng.normal(size=(768, 32)), np.zeros(32), rng.normal(size=(32, 1000)), np.zeros(1000)
    network = Network(*layers)
    write_candidates(root / "data/candidates", {"fp32": network, "int8": network})


def _compare(page: Path, home: Path) -> None:
    """The page on the network beside the same with noise."""
    bundle, params = open_bundle("data/bundle", Settings(home=home)), load_params()
    reference = bundle.reference()
    names = np.array(bundle.info.classes, object)[reference["labels"]]
    random = np.random.default_rng(0)
    noisy = reference["probabilities"] + random.exponential(0.1, reference["probabilities"].shape)
    both = (reference["probabilities"], noisy / noisy.sum(1, keepdims=True))
    sides = [Side(t, bundle.digest, bundle.info, None, p) for t, p in zip("xy", both, strict=True)]
    found = side_by_side(sides[0], sides[1], names, params.evaluate)
    picture = np.full((16, 16, 3), 99, np.uint8)
    page.write_text(render_comparison(found, lambda row: (picture, f"{row}.png"), params.evaluate))


@pytest.fixture(params=["digits", "large", "comparison"])
def page(request: pytest.FixtureRequest, pages: dict[str, Path]) -> Path:
    return pages[request.param]


def test_nothing_leaves_the_page_and_everything_can_be_read(browser, page):
    assert page.stat().st_size < 8e6
    for scheme in ("light", "dark"):
        browser.open(page, 1280, scheme)
        assert browser.messages == []
        assert browser.requests == []
        assert browser.unreadable() == []
        assert browser.value(SIDEWAYS) == 0
        assert set(browser.value(SCROLLED)) <= {"matrix", "matrix many", "matrix heat"}
        assert browser.value("[...document.images].every(image => image.complete && image.alt)")


def test_it_fits_a_tablet_and_a_phone(browser, page):
    for width in (960, 800, 390):
        browser.open(page, width)
        assert browser.value(SIDEWAYS) == 0
        assert set(browser.value(SCROLLED)) <= {"matrix", "matrix many", "matrix heat"}
    figures = "document.querySelectorAll('.records td[data-label]')"
    beyond = "[...%s].filter(cell => cell.getBoundingClientRect().right > 390).length"
    assert browser.value(f"{figures}.length") > 10
    assert browser.value(beyond % figures) == 0


def test_it_prints_on_a4_with_nothing_cut_off(browser, page):
    browser.open(page, 710, media="print")  # A4 at 96 pixels an inch, less the margins
    assert browser.value(SCROLLED) == []
    assert browser.value(SIDEWAYS) == 0
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 2


def test_the_keyboard_reaches_the_contents_and_every_section(browser, pages):
    browser.open(pages["digits"])
    browser.press("Tab")
    assert browser.value("document.activeElement.textContent") == "Skip to the report"
    assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Tab")
    assert browser.value("document.activeElement.hash") == "#report"
    browser.value("document.querySelector('.contents a[href=\"#classes\"]').click()")
    top = "document.querySelector('#classes').getBoundingClientRect().top"
    bar = "document.querySelector('.contents').getBoundingClientRect().bottom"
    assert browser.value(bar) <= browser.value(top) + 40 < 200


def test_a_request_or_a_message_would_be_seen(browser, tmp_path):
    """That the checks above can fail."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="file:///nowhere.png"><p style="color:#aaa">pale</p><div class="scroll" style='
        '"width:9px;overflow:auto"><table class="wide"><td>abcdefgh</table></div>'
        "<script>console.log('hello'); missing()</script>"
    )
    browser.open(page)
    assert len(browser.requests) == 1
    assert any("hello" in message for message in browser.messages)
    assert any("missing is not defined" in message for message in browser.messages)
    assert [text.split(":")[0] for text in browser.unreadable()] == ["P pale"]
    assert browser.value(SCROLLED) == ["wide"]
