"""The training loop in plain Python: rebuild what changed, then register, gate and promote.

The command line runs it as it is; flows/train.py runs it with each step as a Prefect task.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec, Protocol, TypeVar

from flows.summary import LoopResult, Outcome, summarise
from tasks.bundle import Bundle, open_bundle
from tasks.params import Settings, load_params, load_settings
from tasks.pipeline import changed_stages, exclusive, repro
from tasks.registry.champion_report import against_champion, pages_of
from tasks.registry.decision import Decision
from tasks.registry.judge import judge
from tasks.registry.promote import promote
from tasks.registry.register import Registered, register
from tasks.registry.server import temporary_server
from tasks.registry.sync import follow
from tasks.registry.versions import champion_bundle
from tasks.releases import current
from tasks.workspace import Workspace, open_workspace

MILESTONES = ("prepare", "tune", "train", "compress", "evaluate")

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Call(Protocol):
    """How a step is called: directly, or as a task of the orchestrator."""

    def __call__(self, name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `step` under `name` and give what it gives."""


def directly(name: str, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a step in this process, with a log line before it."""
    log.info("%s ...", name)
    return step(*args, **kwargs)


def run_loop(overrides: Mapping[str, object] | None = None, call: Call = directly) -> LoopResult:
    """Take the images through the whole loop; a rerun with nothing changed does nothing.

    `overrides` are dotted keys of conf/params.yaml for this run alone. Raises the
    VisionloopError of the step that failed; what was finished stays finished.
    """
    settings = load_settings()
    load_params(overrides=overrides)  # a mistake stops here, before anything is written
    with exclusive(settings):
        workspace = open_workspace(overrides or {}, settings)
        changed = rebuild(workspace, settings, call)
        bundle = open_bundle(workspace.bundle, settings)
        outcome = release(bundle, workspace, settings, call)
    return summarise(workspace, bundle, changed, outcome, pages_of(bundle, settings))


def rebuild(workspace: Workspace, settings: Settings, call: Call) -> list[str]:
    """Bring every milestone up to date; gives the stages that ran."""
    if not call("status", changed_stages, workspace, MILESTONES[-1]):
        log.info("every stage is up to date")
        return []
    ran: list[str] = []
    with forwarding(settings):
        for milestone in MILESTONES:
            ran += call(milestone, repro, workspace, milestone, settings)
    return ran


@contextmanager
def forwarding(settings: Settings) -> Iterator[None]:
    """Send the runs that the steps record to MLflow while they run, if it is there."""
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(settings, stop), name="forwarder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)


def release(bundle: Bundle, workspace: Workspace, settings: Settings, call: Call) -> Outcome:
    """Register the bundle, let the gate compare it with the champion, act on the decision.

    The bundle in production needs none of this, and no MLflow server.
    """
    in_production = current(settings)
    if (
        in_production is not None
        and in_production.digest == bundle.digest[: len(in_production.digest)]
    ):
        log.info("the bundle is in production already, as version %d", in_production.version)
        return Outcome.unchanged(in_production.version)
    with temporary_server(settings) as reachable:
        registered = call("register", register, bundle, reachable)
        decision = call("gate", gate, bundle, workspace, reachable)
        call("compare", compare, bundle, registered, workspace, reachable)
        promotion = call("promote", promote, registered.version, decision, reachable)
    return Outcome.of(registered, promotion)


def compare(
    bundle: Bundle, registered: Registered, workspace: Workspace, settings: Settings
) -> None:
    """Fill the report with what changes against the champion of this moment, if there is one."""
    against_champion(bundle, registered, workspace.params, workspace.root, settings)


def gate(bundle: Bundle, workspace: Workspace, settings: Settings) -> Decision:
    """The gate's decision on the bundle, against the champion of this moment."""
    champion = champion_bundle(settings)
    return judge(bundle, champion, workspace.params, settings, workspace.root)
