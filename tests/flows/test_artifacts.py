"""What the Prefect UI shows of a run: the gate's rules, the model card for people."""

from pathlib import Path

from flows.artifacts import _gate, _report, without_front_matter
from flows.summary import LoopResult, Outcome
from tasks.bundle import Bundle
from tasks.registry.champion_report import Pages
from tasks.registry.decision import Decision, Rule


def test_the_gate_shows_which_rules_block_and_which_only_warn(digits_bundle: Bundle) -> None:
    rules = (
        Rule("accuracy", -0.2, -0.018, "fail", "accuracy fell"),
        Rule("slice", None, 0.5, "unknown", "slice cannot be judged", "warn"),
        Rule("size", 3.0, None, "pass", "size 3 MB, no limit"),
    )
    decision = Decision("block", rules, digits_bundle.digest, None)
    outcome = Outcome(
        3, True, "challenger", False, tuple(decision.reason.split("; ")), None, decision
    )
    text = _gate(LoopResult(Path(), (), digits_bundle, {}, {}, {}, outcome, _pages(digits_bundle)))
    assert "**Version 3: not promoted** — accuracy fell; warning: slice cannot be judged" in text
    assert "| accuracy | -0.2 | -0.018 | fail | block | accuracy fell |" in text
    assert "| slice |  | 0.5 | unknown | warn | slice cannot be judged |" in text
    assert "| size | 3 |  | pass | pass | size 3 MB, no limit |" in text


def test_the_report_is_linked_with_the_champion_where_the_gate_filled_it_in(
    digits_bundle: Bundle,
) -> None:
    outcome, run = Outcome.unchanged(3), "http://mlflow/#/experiments/1/runs/a"
    for filled, name in ((None, "report"), (Path("report-champion-v2.html"), "report-champion-v2")):
        pages = _pages(digits_bundle, filled)
        result = LoopResult(Path(), (), digits_bundle, {}, {}, {}, outcome, pages)
        assert f"({run}/artifacts/evaluation/{name}.html)" in _report(result, run)
        assert result.as_json()["report"] == str(pages.report)


def _pages(bundle: Bundle, filled: Path | None = None) -> Pages:
    return Pages(bundle.path / "report.html", filled, ())


def test_of_a_model_card_the_text_for_people_is_shown():
    card = "---\nlicense: mit\ntags:\n- onnx\n---\n\n# A model\n\n| a | b |\n| --- | --- |\n"
    assert without_front_matter(card) == "# A model\n\n| a | b |\n| --- | --- |\n"
    assert without_front_matter("# No front matter\n") == "# No front matter\n"
