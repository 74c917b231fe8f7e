"""A decision that counts: on the frozen test images of a workspace, for a promotion."""

from pathlib import Path

from tasks.bundle import Bundle
from tasks.params import Settings
from tasks.registry.decision import Decision
from tasks.registry.frozen import frozen_images
from tasks.registry.gate import decide
from tasks.registry.looks import count_look
from tasks.schema import Params


def judge(
    challenger: Bundle,
    champion: Bundle | None,
    params: Params,
    settings: Settings,
    root: Path = Path(),
) -> Decision:
    """The gate's decision, and a look at the test images below `root`; DataError without them."""
    test = frozen_images(params, root)
    gate, budget = params.gate, params.budget
    looks = None
    if champion is None or challenger.digest != champion.digest:
        looks = count_look(challenger, champion, test, gate, budget, settings)
    return decide(challenger, champion, test, gate, budget, looks)
