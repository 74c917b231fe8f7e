"""`visionloop status`: champion, previous, last run, last drift check, addresses.

Works with nothing running: the champion comes from the local release directory, the last
run from the outbox. MLflow adds its aliases, over REST, when it answers.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from flows.processes import running
from flows.services import Service, services
from tasks.errors import VisionloopError
from tasks.params import Settings, load_settings
from tasks.releases import current
from tasks.runtime import TITLES
from tasks.tracking import EVENTS, outbox, read_events

MODEL = "visionloop"


def gather() -> dict[str, Any]:
    """The state as plain values, ready for JSON; what is not known is None."""
    settings = load_settings()
    servers = services(settings)
    up = {server.name: server.answers() for server in servers}
    aliases = _aliases(servers[1]) if up["MLflow"] else None
    return {
        "champion": _champion(settings, aliases),
        "previous": _version(aliases, "previous"),
        "challenger": _version(aliases, "challenger"),
        "last_run": _last_run(settings),
        "last_drift_check": _last_check(settings),
        "supervised": running(settings) is not None,
        "addresses": {s.name: {"url": s.url, "answers": up[s.name]} for s in servers},
    }


def show(state: Mapping[str, Any], console: Console) -> None:
    """Print the state for a person."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_row("champion", _champion_line(state["champion"]))
    unknown = "unknown" if state["addresses"]["MLflow"]["answers"] is False else "none"
    for alias in ("previous", "challenger"):
        found = state[alias]
        table.add_row(alias, f"version {found}" if found else f"{unknown}{_why(unknown)}")
    table.add_row("last run", _run_line(state["last_run"]))
    table.add_row("last drift check", _check_line(state["last_drift_check"]))
    for name, address in state["addresses"].items():
        mark = "[green]up[/]" if address["answers"] else "[dim]not running[/]"
        table.add_row(name, f"{address['url']}  {mark}")
    console.print(table)


def _why(unknown: str) -> str:
    return " (MLflow is not running)" if unknown == "unknown" else ""


def _champion(settings: Settings, aliases: Mapping[str, int] | None) -> dict[str, Any] | None:
    """What is served here; `registry_version` differs while a promotion is under way."""
    release = current(settings)
    registered = _version(aliases, "champion")
    if release is None:
        return None if registered is None else {"version": registered, "served_here": False}
    info = json.loads((release.path / "bundle.json").read_text(encoding="utf-8"))
    measured = info["measurements"]
    return {
        "version": release.version,
        "served_here": True,
        "registry_version": registered,
        "path": str(release.path),
        "technique": info["technique"],
        "runtime": info["runtime"].get("name", "onnxruntime"),
        "classes": len(info["classes"]),
        **{name: measured[name] for name in ("accuracy", "accuracy_low", "accuracy_high")},
        "latency_ms": measured["latency_ms"],
        "size_bytes": measured["size_bytes"],
        "git_commit": info["lineage"]["git_commit"],
    }


def _aliases(mlflow: Service) -> dict[str, int] | None:
    """The aliases of the registered model, or None when the registry cannot say."""
    address = f"{mlflow.url}/api/2.0/mlflow/registered-models/get"
    try:
        answer = httpx.get(address, params={"name": MODEL}, timeout=3, trust_env=False)
        if answer.status_code == 404:
            return {}
        found = answer.raise_for_status().json()["registered_model"].get("aliases", [])
        return {str(item["alias"]): int(item["version"]) for item in found}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _version(aliases: Mapping[str, int] | None, alias: str) -> int | None:
    return None if aliases is None else aliases.get(alias)


def _last_run(settings: Settings) -> dict[str, Any] | None:
    """The newest run in the outbox that is not a trial of a sweep."""
    recorded = [
        file for file in outbox(settings).glob(f"*/{EVENTS}") if "-trial-" not in file.parent.name
    ]
    if not recorded:
        return None
    # of the events, not of their folder: what was sent to MLflow is noted there later
    events = read_events(max(recorded, key=lambda file: file.stat().st_mtime).parent)
    if not events:
        return None
    ended = [event for event in events if event["type"] == "finish"]
    return {
        "name": events[0].get("name"),
        "started": _time(events[0]["time"]),
        "status": ended[-1]["status"] if ended else "RUNNING or killed",
        "ended": _time(ended[-1]["time"]) if ended else None,
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _last_check(settings: Settings) -> dict[str, Any] | None:
    if settings.database_url is None and not (settings.home / "predictions.db").exists():
        return None
    from tasks.predictions import open_log

    try:
        log = open_log(settings.predictions_url)
        check = log.last_check()
        log.close()
    except VisionloopError as error:
        return {"error": str(error)}
    if check is None:
        return None
    return {
        "time": check.time.isoformat(timespec="seconds"),
        "outcome": check.outcome,
        "model_version": check.model_version,
        "started_run": check.triggered,
    }


def _champion_line(champion: Mapping[str, Any] | None) -> str:
    if champion is None:
        return "none yet: `visionloop run` makes and promotes one"
    if not champion["served_here"]:
        return f"version {champion['version']}, not published on this machine"
    return (
        f"version {champion['version']} ({champion['technique']}, {champion['classes']} classes): "
        f"accuracy {champion['accuracy']:.3f} "
        f"({champion['accuracy_low']:.3f} to {champion['accuracy_high']:.3f}), "
        f"{champion['latency_ms']:.2f} ms on {TITLES[champion['runtime']]}, "
        f"{champion['size_bytes'] / 1e6:.2f} MB"
    )


def _run_line(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "none"
    return f"{run['name']}: {run['status']}, {run['ended'] or 'started ' + run['started']}"


def _check_line(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return "none"
    if "error" in check:
        return str(check["error"])
    started = f", started run {check['started_run']}" if check["started_run"] else ""
    return f"{check['outcome']}, {check['time']}, version {check['model_version']}{started}"
