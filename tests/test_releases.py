"""The local release directory: the server sees one whole release or none."""

import os
import shutil
import subprocess
import sys

import pytest

from tasks.bundle import open_bundle
from tasks.errors import BundleError
from tasks.releases import current, publish


def test_before_the_first_promotion_there_is_none(settings):
    assert current(settings) is None


def test_published_it_is_current_and_whole(digits_bundle, settings):
    release = publish(digits_bundle, 3, settings)
    assert current(settings) == release
    assert release.version == 3
    assert open_bundle(release.path, settings).digest == digits_bundle.digest


def test_the_release_outlives_the_bundle_it_came_from(digits_bundle, settings):
    publish(digits_bundle, 1, settings)
    shutil.rmtree(digits_bundle.path)
    assert open_bundle(current(settings).path, settings).digest == digits_bundle.digest


def test_the_newest_is_current_and_the_older_one_stays(make_bundle, settings):
    old, new = make_bundle(), make_bundle(1e-4, "new")
    first, second = publish(old, 1, settings), publish(new, 2, settings)
    assert current(settings) == second
    assert open_bundle(first.path, settings).digest == old.digest
    assert publish(old, 1, settings) == current(settings) == first  # rolled back


def test_publishing_twice_changes_nothing(digits_bundle, settings):
    publish(digits_bundle, 1, settings)
    before = sorted(os.listdir(settings.releases))
    publish(digits_bundle, 1, settings)
    assert sorted(os.listdir(settings.releases)) == before
    assert len(before) == 2  # the release and the link


def test_an_altered_release_is_not_made_current(make_bundle, settings):
    old, new = make_bundle(), make_bundle(1e-4, "new")
    release = publish(new, 2, settings)
    publish(old, 1, settings)
    (release.path / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        publish(new, 2, settings)
    assert current(settings).version == 1


def test_a_bundle_altered_at_its_source_is_not_published(digits_bundle, settings):
    (digits_bundle.path / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        publish(digits_bundle, 1, settings)
    assert current(settings) is None


def test_a_link_that_leads_elsewhere_is_refused(settings, tmp_path):
    settings.releases.mkdir(parents=True)
    (settings.releases / "current").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="not to a release"):
        current(settings)


POLL = """
import sys
from pathlib import Path
from tasks.params import Settings
from tasks.releases import current
settings, seen = Settings(home=Path(sys.argv[1])), set()
print("polling", flush=True)
while 9 not in seen:
    release = current(settings)
    assert release is not None and (release.path / "bundle.json").is_file()
    seen.add(release.version)
"""


def test_a_poller_never_sees_a_gap(digits_bundle, settings):
    publish(digits_bundle, 1, settings)
    command = [sys.executable, "-c", POLL, str(settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as poller:
        assert poller.stdout.readline() == "polling\n"
        for version in [*range(2, 9), *range(2, 10)]:
            publish(digits_bundle, version, settings)
    assert poller.returncode == 0
