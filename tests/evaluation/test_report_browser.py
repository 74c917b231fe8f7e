"""The pages of the evidence in a real browser: offline, on a phone, printed, light and dark."""

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from headless import Browser, start_browser
from ruamel.yaml import YAML
from small_pipeline import Network, write_candidates, write_shards

from tasks.bundle import open_bundle
from tasks.evaluation.champion_part import BEGIN, END, filled
from tasks.evaluation.comparison_page import Compared, render_comparison, report_with
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
    """Built once: reports on real digits and on a thousand classes, both filled, a comparison."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copytree(built, root / "digits")
    shutil.copytree(built, root / "large")
    _many_classes(root / "large")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("digits", "large"):
            patch.setenv("VISIONLOOP_HOME", str(root / "home"))
            patch.chdir(root / name)
            main()
        for name in ("large", "digits"):
            patch.chdir(root / name)
            compared, evaluate = _compared(root / "home"), load_params().evaluate
            report = (root / name / "data/bundle/report.html").read_text()
            (root / f"{name}-filled.html").write_text(report_with(compared, report, evaluate) or "")
        (root / "comparison.html").write_text(render_comparison(compared, evaluate))
    reports = {name: root / name / "data/bundle/report.html" for name in ("digits", "large")}
    made = ("digits-filled", "large-filled", "comparison")
    return reports | {name: root / f"{name}.html" for name in made}


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


def _compared(home: Path) -> Compared:
    """The network beside the same with noise."""
    bundle = open_bundle("data/bundle", Settings(home=home))
    reference = bundle.reference()
    names = np.array(bundle.info.classes, object)[reference["labels"]]
    random = np.random.default_rng(0)
    noisy = reference["probabilities"] + random.exponential(0.1, reference["probabilities"].shape)
    both = (reference["probabilities"], noisy / noisy.sum(1, keepdims=True))
    titles = ("version 1 (champion)", "version 2")
    sides = [Side(*each, bundle.info, None, p) for *each, p in zip(titles, "xy", both, strict=True)]
    found = side_by_side(sides[0], sides[1], names, load_params().evaluate)
    picture = np.full((16, 16, 3), 99, np.uint8)
    return Compared(found, lambda row: (picture, f"{row}.png"))


@pytest.fixture(params=["digits", "large", "digits-filled", "large-filled", "comparison"])
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


def test_the_filled_report_is_the_signed_one_with_one_part_in_its_place(browser, pages):
    signed, copy = (pages[name].read_text() for name in ("digits", "digits-filled"))
    assert (signed.count(BEGIN), signed.count(END)) == (1, 1)
    assert copy.startswith(signed.partition(BEGIN)[0] + BEGIN)  # with its policy and its styles
    assert copy.endswith(END + signed.partition(END)[2])
    assert "visionloop compare champion" in signed
    assert "visionloop compare champion" not in copy
    browser.open(pages["digits-filled"])
    part = browser.value("document.querySelector('#champion').innerText")
    assert "A is version 1 (champion). B is version 2, the model of this report." in part
    for said in ("Figure by figure", "Class by class", "images go wrong", "images come right"):
        assert said in part
    (counts,) = re.findall(r"(\d+) images come right, (\d+) go wrong", part)
    shown = browser.value("document.querySelectorAll('#champion .pictures img').length")
    assert shown == sum(int(count) for count in counts) > 4
    ids = browser.value("[...document.querySelectorAll('[id]')].map(found => found.id)")
    assert len(ids) == len(set(ids)) > 10
    levels = browser.value(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map(found => +found.tagName[1])"
    )
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise([0, *levels]))


def test_a_report_from_before_the_marks_has_no_place_to_fill():
    for older in ("<main>all</main>", f"<p>{BEGIN}", f"<p>{END}{BEGIN}"):
        assert filled(older, "part") is None


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
