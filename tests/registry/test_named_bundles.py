"""The gate asked of versions and aliases that MLflow alone has."""

import shutil
from pathlib import Path

import pytest

from flows.bundle import named_bundle
from flows.gate import evaluate
from tasks.errors import RegistryError
from tasks.params import Settings
from tasks.registry.decision import by_hand
from tasks.registry.promote import promote
from tasks.registry.register import register

CONF = Path(__file__).parents[2] / "conf"


def test_versions_and_aliases_come_from_mlflow(
    make_bundle, settings, mlflow_server, tmp_path, monkeypatch
):
    first, second = make_bundle(0.1, "first"), make_bundle(0.12, "second")
    before = None
    for bundle in (first, second):
        version = register(bundle, settings).version
        promote(version, by_hand(bundle, before, "tester", "it is time"), settings)
        before = bundle

    elsewhere = Settings(home=tmp_path / "elsewhere", MLFLOW_TRACKING_URI=mlflow_server)
    shutil.copytree(settings.home / "keys", elsewhere.home / "keys")
    shutil.copytree(CONF, tmp_path / "repository/conf")
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setenv("VISIONLOOP_HOME", str(elsewhere.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    for name, champion in (("champion", "previous"), ("v2", "1")):
        found = evaluate(name, champion)
        assert found.champion is not None
        assert (found.bundle.digest, found.champion.digest) == (second.digest, first.digest)
        assert found.decision.outcome == "promote"
    with pytest.raises(RegistryError, match="there is no challenger yet"):
        named_bundle("challenger", elsewhere)
    with pytest.raises(RegistryError, match="there is no version 7"):
        evaluate("7", None)
