"""What `visionloop doctor` looks at of the repository, and of the servers that it uses.

Each check is a function that gives one `Check` or more.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

from flows.doctor_machine import Check
from flows.processes import running
from flows.services import services
from tasks.errors import VisionloopError
from tasks.params import Settings, load_params
from tasks.ports import holder, is_free
from tasks.schema import Source


def _git(_: Settings) -> Iterator[Check]:
    if shutil.which("git") is None:
        yield Check("git", "fail", "not installed", "install git; versions of code come from it")
        return
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        yield Check("git", "warn", "not a git repository", "git init, so that runs name a commit")
    elif changed := len(done.stdout.splitlines()):
        mend = "commit, so that the lineage of a model names the code that made it"
        yield Check("git", "warn", f"{changed} changed files", mend)
    else:
        yield Check("git", "ok", "clean")


def _dvc(_: Settings) -> Iterator[Check]:
    config = ConfigParser()
    try:
        found = config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    except ConfigError as error:
        yield Check("dvc", "fail", f".dvc/config: {error}", "git restore .dvc/config")
        return
    if not found:
        yield Check("dvc", "fail", "no .dvc/config", "git restore .dvc")
        return
    name = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if url is None:
        mend = "dvc remote add --default NAME URL, so that `dvc push` has a place"
        yield Check("dvc", "warn", "no default remote", mend)
    else:
        yield Check("dvc", "ok", f"remote {name}: {url}")


def _params(_: Settings) -> Iterator[Check]:
    try:
        sources = load_params().ingest.sources
    except VisionloopError as error:
        yield Check("params", "fail", str(error), "mend the key, or `visionloop init --data PATH`")
        return
    yield Check("params", "ok", "conf/params.yaml is valid")
    yield from map(_source, sources.values())


def _source(source: Source) -> Check:
    if "://" in source.path:
        return Check("data", "ok", f"{source.path} (looked at when it is ingested)")
    if Path(source.path).exists():
        return Check("data", "ok", source.path)
    if Path(source.path) == Path("data/raw/digits"):
        return Check("data", "ok", f"{source.path} (the quickstart's; the first run writes it)")
    mend = "put the images there, or `visionloop init --data PATH`"
    return Check("data", "fail", f"{source.path} does not exist", mend)


def _key(settings: Settings) -> Iterator[Check]:
    path = settings.signing_key or settings.home / "keys" / "signing.pem"
    if not path.exists():
        made = settings.signing_key is None
        mend = "" if made else "mend VISIONLOOP_SIGNING_KEY, or unset it to have a key made"
        found = "none yet; the first run makes one" if made else f"{path} does not exist"
        yield Check("signing key", "ok" if made else "fail", found, mend)
    elif not os.access(path, os.R_OK):
        yield Check("signing key", "fail", f"{path} cannot be read", f"chmod u+r {path}")
    elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("signing key", "fail", f"{path} is open to others", f"chmod 600 {path}")
    else:
        yield Check("signing key", "ok", str(path))


def _servers(settings: Settings) -> Iterator[Check]:
    try:
        servers = services(settings)
    except VisionloopError as error:
        yield Check("servers", "fail", str(error), "mend the address")
        return
    ours = running(settings) is not None
    for server in servers:
        name = f"port {server.port}"
        if server.answers():
            yield Check(name, "ok", f"{server.name} answers at {server.url}")
        elif not server.local:
            mend = "start it there, or unset its address to run one here"
            yield Check(name, "warn", f"{server.name} at {server.url} does not answer", mend)
        elif is_free(server.host, server.port):
            found = f"free; {server.name} is not running (`visionloop up` starts it)"
            yield Check(name, "ok", found)
        elif ours:
            yield Check(name, "warn", f"{server.name} is starting, or hangs", "see its log")
        else:
            found = f"held by {holder(server.port)}, which is not {server.name}"
            yield Check(name, "fail", found, f"stop it, or {server.move} visionloop up")


REPOSITORY = (_git, _dvc, _params, _key, _servers)
