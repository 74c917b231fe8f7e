"""What the Prefect UI shows of a run: the gate's rules, the model card for people."""

from pathlib import Path

from flows.artifacts import _gate, without_front_matter
from flows.summary import LoopResult, Outcome
from tasks.bundle import Bundle
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
    text = _gate(LoopResult(Path(), (), digits_bundle, {}, {}, {}, outcome))
    assert "**Version 3: not promoted** — accuracy fell; warning: slice cannot be judged" in text
    assert "| accuracy | -0.2 | -0.018 | fail | block | accuracy fell |" in text
    assert "| slice |  | 0.5 | unknown | warn | slice cannot be judged |" in text
    assert "| size | 3 |  | pass | pass | size 3 MB, no limit |" in text


def test_of_a_model_card_the_text_for_people_is_shown():
    card = "---\nlicense: mit\ntags:\n- onnx\n---\n\n# A model\n\n| a | b |\n| --- | --- |\n"
    assert without_front_matter(card) == "# A model\n\n| a | b |\n| --- | --- |\n"
    assert without_front_matter("# No front matter\n") == "# No front matter\n"
