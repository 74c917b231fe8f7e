"""Settings of the environment: addresses and secrets, which are never shown."""

import pytest

from tasks.errors import ParamsError
from tasks.params import Settings, load_settings


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    for name, value in {
        "VISIONLOOP_HOME": str(tmp_path), "VISIONLOOP_PORT": "8123",
        "MLFLOW_TRACKING_URI": "http://tracker:5000",
        "VISIONLOOP_DATABASE_URL": "postgresql://user:secret@db/visionloop",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.home, settings.port) == (tmp_path, 8123)
    assert settings.tracking_uri == "http://tracker:5000"
    assert settings.releases == tmp_path / "releases"
    assert settings.predictions_url == "postgresql://user:secret@db/visionloop"
    assert "secret" not in repr(settings)
    assert "secret" not in settings.model_dump_json()


def test_the_prediction_log_is_sqlite_in_the_state_directory_by_default(tmp_path):
    assert Settings(home=tmp_path).predictions_url == f"sqlite:///{tmp_path}/predictions.db"


@pytest.mark.parametrize("value", ["abc", "-1", "70000"])
def test_a_wrong_setting_names_its_variable(monkeypatch, value):
    monkeypatch.setenv("VISIONLOOP_PORT", value)
    with pytest.raises(ParamsError, match="environment variable VISIONLOOP_PORT"):
        load_settings()
