"""Promotion by hand, and rollback."""

import getpass

from tasks.params import load_params, load_settings
from tasks.registry.decision import by_hand
from tasks.registry.judge import judge
from tasks.registry.promote import Promotion, promote, rollback
from tasks.registry.server import temporary_server
from tasks.registry.versions import champion_bundle, fetch


def promote_version(version: int, force: bool, reason: str) -> Promotion:
    """Make a registered version the champion if the gate lets it, or with `force` regardless.

    A blocked version changes nothing. Raises RegistryError for a version that does not exist,
    BundleError for one that does not pass the smoke test.
    """
    params = load_params()
    with temporary_server(load_settings()) as settings:
        challenger, champion = fetch(version, settings), champion_bundle(settings)
        if force:
            decision = by_hand(challenger, champion, getpass.getuser(), reason)
        else:
            decision = judge(challenger, champion, params, settings)
        return promote(version, decision, settings)


def roll_back(reason: str) -> Promotion:
    """Put the previous champion back after a smoke test; raises RegistryError if there is none."""
    with temporary_server(load_settings()) as settings:
        return rollback(settings, reason)
