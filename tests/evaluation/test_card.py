"""The model card: what only a person can say, and the cost of training where it was measured."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.evaluation.evaluate import main
from tasks.evaluation.training_cost import COST, TrainingCost
from tasks.files import write_json

SCANNERS = "Digits on forms that a *clerk* checks | never alone."


@pytest.fixture
def card(pipeline: Path):
    """Runs the step with these values of `evaluate.card`; gives front matter and text."""

    def make(**values: Any) -> tuple[dict[str, Any], str]:
        yaml, path = YAML(), Path("conf/params.yaml")
        params = yaml.load(path)
        params["evaluate"]["robustness"]["enabled"] = False
        params["evaluate"]["card"] |= values
        yaml.dump(params, path)
        main()
        text = Path("data/bundle/MODEL_CARD.md").read_text(encoding="utf-8")
        _, front, body = text.split("---\n", 2)
        return YAML(typ="safe").load(front), body

    return make


def part(body: str, title: str) -> str:
    return body.partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip()


def test_what_nobody_has_stated_is_said_to_be_so(card):
    front, body = card()
    assert "Nobody has stated a narrower use (`evaluate.card.intended_use`)" in body
    assert "come from elsewhere than digits" in part(body, "Out of scope")
    assert part(body, "Environmental cost") == "The training step recorded no cost."
    assert "co2_eq_emissions" not in front


def test_what_was_stated_stands_there_as_it_is(card):
    _, body = card(intended_use=SCANNERS, out_of_scope="Cheques.\n\nBallots.")
    assert part(body, "Intended use") == SCANNERS
    assert part(body, "Out of scope") == "Cheques.\n\nBallots."


def test_the_hardest_classes_are_among_the_limits(card):
    _, body = card()
    line = next(one for one in part(body, "Limits").splitlines() if "finds least often" in one)
    rows = [row.split("|") for row in part(body, "Results").splitlines() if row.count("|") == 6]
    recalls = {cells[1].strip(): float(cells[4].split("\xa0")[0]) for cells in rows[2:]}
    named = line.partition(": ")[2]
    assert named.startswith(f"{min(recalls, key=lambda name: recalls[name])} (")


def test_emissions_are_stated_when_the_energy_was_measured_and_the_grid_is_known(card):
    write_json(COST, {"seconds": 3725.0, "joules": 7.2e6, "device": "cpu", "hardware": "A | B"})
    front, body = card()
    cost = part(body, "Environmental cost")
    assert "| 1 h 2 min |" in cost
    assert r"| A \| B |" in cost
    assert "2 kWh of all processor packages" in cost
    assert "| emissions | not stated |" in cost
    assert "co2_eq_emissions" not in front
    front, body = card(grid_g_co2_per_kwh=400.0)
    assert front["co2_eq_emissions"]["emissions"] == 800.0
    assert "400 g CO2 per kWh" in front["co2_eq_emissions"]["source"]
    assert "800 g CO2" in part(body, "Environmental cost")


def test_without_counters_no_energy_and_no_emissions_are_stated(card):
    write_json(COST, {"seconds": 42.5, "joules": None, "device": "cpu", "hardware": "a laptop"})
    front, body = card(grid_g_co2_per_kwh=400.0)
    assert "not measurable on the machine that trained" in body
    assert "| emissions | not stated |" in body
    assert "co2_eq_emissions" not in front


def test_times_are_told_as_people_do():
    told = [TrainingCost(seconds, None, "").time() for seconds in (None, 3.14, 75, 7260)]
    assert told == ["not recorded", "3.1 s", "1 min 15 s", "2 h 1 min"]
