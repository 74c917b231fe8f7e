"""`visionloop up`: start and supervise every server and the worker, and stop them together.

Honcho runs the processes; each writes its log under <home>/logs. All of Prefect's own state
stays under <home> too: nothing is written outside the repository.
"""

import os
import shlex
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TextIO
from uuid import uuid4

import httpx
from honcho import manager
from honcho.printer import Message
from rich.console import Console

from flows.processes import MARK, ask_to_end, clear_earlier, end_marked, state_file, write_state
from flows.services import Service, prefect_api_url, services
from flows.worker import POOL
from tasks.errors import ServiceError
from tasks.params import Settings
from tasks.ports import holder, is_free

_LAST_LINES = 15
_STARTUP_SECONDS = 120  # then it is said what is waited for

# The model server finishes requests and writes its prediction log before it stops.
manager.KILL_WAIT = 15
console = Console(highlight=False, soft_wrap=True)


def up(settings: Settings, verbose: bool = False) -> int:
    """Run until Ctrl-C, SIGTERM or the end of one process; returns 130 or 143.

    Raises ServiceError when a port is taken or a process ends by itself.
    """
    clear_earlier(settings)
    servers = services(settings)
    _check_ports(servers)
    mark = uuid4().hex
    supervisor = Supervisor(settings, servers, mark, verbose)
    try:
        for name, command in _commands(settings, servers).items():
            supervisor.add_process(
                name, f"exec {shlex.join(command)}", env=_environment(settings, mark)
            )
        supervisor.loop()
    finally:
        end_marked(mark)
        state_file(settings).unlink(missing_ok=True)
    return supervisor.exit_code()


class Journal:
    """Honcho's printer: a log file a process, its last lines in memory, system lines shown."""

    width = 0

    def __init__(self, directory: Path, verbose: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.first_to_stop: str | None = None
        self.last_lines: dict[str, deque[str]] = {}
        self._files: dict[str, TextIO] = {}
        self._verbose = verbose

    def write(self, message: Message) -> None:
        """Keep one message; called by honcho's loop alone."""
        data = message.data
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        name = message.name
        if name not in self._files:
            self._files[name] = open(self.directory / f"{name}.log", "w", encoding="utf-8")  # noqa: SIM115
            self.last_lines[name] = deque(maxlen=_LAST_LINES)
        self._files[name].write(text if text.endswith("\n") else text + "\n")
        self._files[name].flush()
        self.last_lines[name].append(text.rstrip())
        if self._verbose:
            console.print(f"{name:<12} {text.rstrip()}", markup=False)


class Supervisor(manager.Manager):  # type: ignore[misc]
    """Honcho's manager that announces readiness, remembers who ended first, and leaves nobody."""

    def __init__(
        self, settings: Settings, servers: tuple[Service, ...], mark: str, verbose: bool
    ) -> None:
        self.journal = Journal(settings.home / "logs", verbose)
        super().__init__(self.journal)
        self.culprit: tuple[str, int] | None = None
        self._settings, self._servers, self._mark = settings, servers, mark

    def exit_code(self) -> int:
        """What to exit with after a signal; raises ServiceError when a process ended by itself."""
        if self.culprit is None:
            return int(self.returncode or 0)
        name, code = self.culprit
        lines = "\n  ".join(self.journal.last_lines.get(name, ["(it said nothing)"]))
        raise ServiceError(
            f"{name} stopped (exit code {code}), so everything was stopped; its last lines "
            f"({self.journal.directory / name}.log):\n  {lines}"
        )

    def terminate(self) -> None:
        """Ask all to stop; called by honcho on a signal and when one process has ended."""
        if not self._all_started():
            raise SystemExit(self.returncode)  # `up` ends what was started by its mark
        if self.returncode is not None and self.culprit is None and not self._terminating:
            ended = [(n, p["returncode"]) for n, p in self._processes.items() if "returncode" in p]
            self.culprit = ended[0] if ended else None
        if not self._terminating:
            console.print("[dim]stopping …[/]")
            # Flow runs are in sessions of their own, where honcho's signal does not reach.
            ask_to_end(self._mark, but=[process["pid"] for process in self._processes.values()])
        super().terminate()

    def kill(self) -> None:
        """Force what did not stop in time, and whatever holds a pipe of ours open."""
        end_marked(self._mark)
        super().kill()

    def _start(self) -> None:
        super()._start()
        # After the forks of honcho: a thread would not survive them.
        threading.Thread(target=self._watch_start, daemon=True, name="watch-start").start()

    def _watch_start(self) -> None:
        self._record()
        console.print(f"starting; logs are in {self.journal.directory}")
        late = time.monotonic() + _STARTUP_SECONDS
        waiting = ["everything"]
        while waiting and not self._terminating:
            if time.monotonic() > late:
                console.print(f"[yellow]still waiting for {', '.join(waiting)}; see the logs[/]")
                late += _STARTUP_SECONDS
            time.sleep(0.5)
            waiting = [s.name for s in self._servers if not s.answers()]
            waiting += [] if waiting or _worker_online() else ["worker"]
        if not self._terminating:
            self._announce()

    def _announce(self) -> None:
        prefect, mlflow, model = self._servers
        console.print("\n[bold green]Visionloop is up[/]")
        for name, url in (
            ("Prefect UI", prefect.url),
            ("MLflow UI", mlflow.url),
            ("Model server", model.url),
            ("Its API docs", f"{model.url}/docs"),
        ):
            console.print(f"  {name:<14}{url}")
        if "PREFECT_API_URL" in os.environ:
            console.print(f"  for `prefect …`: export PREFECT_API_URL={prefect_api_url()}")
        console.print("[dim]Ctrl-C stops all.[/]")

    def _record(self) -> None:
        while not self._all_started():
            time.sleep(0.05)
        pids = {name: process["pid"] for name, process in self._processes.items()}
        addresses = {server.name: server.url for server in self._servers}
        write_state(self._settings, self._mark, addresses, pids)


def _check_ports(servers: tuple[Service, ...]) -> None:
    taken = [
        f"port {server.port} ({server.name}) is held by {holder(server.port)}; "
        f"stop it, or use another port: {server.move} visionloop up"
        for server in servers
        if server.local and not is_free(server.host, server.port)
    ]
    if taken:
        raise ServiceError("\n  ".join(taken))


def _commands(settings: Settings, servers: tuple[Service, ...]) -> dict[str, list[str]]:
    """What to run, by name; a server on another machine is used, not started."""
    from tasks.registry.server import mlflow_server_command

    prefect, mlflow, _ = servers
    commands = {}
    if prefect.local:
        start = [str(Path(sys.executable).with_name("prefect")), "server", "start"]
        commands["prefect"] = [*start, "--host", prefect.host, "--port", str(prefect.port)]
    if mlflow.local:
        commands["mlflow"] = mlflow_server_command(settings, mlflow.host, mlflow.port)
    commands["worker"] = [sys.executable, "-m", "flows.worker"]
    commands["forwarder"] = [sys.executable, "-m", "tasks.registry.sync", "--follow"]
    commands["serve"] = [sys.executable, "-m", "flows.cli", "serve"]
    return commands


def _environment(settings: Settings, mark: str) -> dict[str, str]:
    home = settings.home.resolve()
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        MARK: mark,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "VISIONLOOP_HOME": str(home),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "PREFECT_API_URL": prefect_api_url(),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _worker_online() -> bool:
    """Whether the worker has reported; its deployments were applied before it started."""
    address = f"{prefect_api_url()}/work_pools/{POOL}/workers/filter"
    try:
        answer = httpx.post(address, json={}, timeout=2, trust_env=False)
        workers = answer.json() if answer.status_code == 200 else []  # 404: no pool yet
    except (httpx.HTTPError, ValueError):
        return False
    return any(worker.get("status") == "ONLINE" for worker in workers)
