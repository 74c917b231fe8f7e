"""Sends the events of one recorded run to MLflow, each once, whatever was interrupted.

A crash between a request and its mark repeats the request: MLflow keeps one copy of a metric
with the same time and step, of a parameter with the same value, of a file of the same name.
"""

import json
import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.registry.connection import EXPERIMENT
from tasks.registry.ledger import Mark, read_mark, write_mark
from tasks.tracking import FILES, Event, read_events

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

KEY_TAG, GENERATION_TAG = "visionloop.key", "visionloop.generation"
_METRICS, _PARAMS, _TAGS = 800, 100, 100  # of one request; MLflow takes 1,000 in all
_NAME_LENGTH, _PARAM_LENGTH, _TAG_LENGTH, _DIGEST_LENGTH = 250, 6000, 5000, 36
log = logging.getLogger(__name__)


class Forwarder:
    """Forwards runs to one MLflow store, which is known by its experiment, not its address."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client
        experiment = find_experiment(client)
        self.experiment_id: str = experiment.experiment_id
        self.store = f"{experiment.experiment_id}-{experiment.creation_time}"

    def forward(self, directory: Path) -> int:
        """Send what MLflow lacks of a run; gives the number of events sent."""
        events = read_events(directory)
        mark = read_mark(directory, self.store)
        if mark is not None and (not events or mark.generation != events[0]["generation"]):
            mark = None  # the run was started over
        if len(events) == (mark.sent if mark else 0):
            return 0
        if mark is None or not self._is_active(mark.run_id):
            mark = self._create(directory, events[0])
        self._send(directory, mark.run_id, events, mark.sent)
        write_mark(directory, self.store, Mark(mark.generation, mark.run_id, len(events)))
        return len(events) - mark.sent

    def run_id(self, directory: Path) -> str | None:
        """The MLflow id of a recorded run, which is forwarded if need be; None without one."""
        self.forward(directory)
        mark = read_mark(directory, self.store)
        return mark.run_id if mark else None

    def find(self, key: str) -> str | None:
        """The MLflow id of the run that any machine recorded under this key; None without one."""
        experiments, wanted = [self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'"
        found = self.client.search_runs(experiments, wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _run_of(self, outbox: Path, key: str) -> str | None:
        """A run recorded here, or, as of a sweep that another machine began, elsewhere."""
        return self.run_id(outbox / key) or self.find(key)

    def _is_active(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _create(self, directory: Path, first: Event) -> Mark:
        """Start the MLflow run, or find the one that a crash left without a mark."""
        key, generation = directory.name, first["generation"]
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{GENERATION_TAG}` = '{generation}'", max_results=1
        )
        if found:
            run_id = found[0].info.run_id
        else:
            tags = {KEY_TAG: key, GENERATION_TAG: generation, "mlflow.source.name": "visionloop"}
            parent = self._run_of(directory.parent, first["parent"]) if first["parent"] else None
            if parent:
                tags["mlflow.parentRunId"] = parent
            run = self.client.create_run(self.experiment_id, first["time"], tags, first["name"])
            run_id = run.info.run_id
        mark = Mark(generation, run_id, 0)
        write_mark(directory, self.store, mark)
        return mark

    def _send(self, directory: Path, run_id: str, events: list[Event], start: int) -> None:
        pending = events[start:]
        params, changed = _params(events, start)
        self._send_values(run_id, _metrics(events, start), params, _tags(pending) + changed)
        datasets = [_dataset(event) for event in pending if event["type"] == "dataset"]
        if datasets:
            self.client.log_inputs(run_id, datasets)
        paths = dict.fromkeys(event["path"] for event in pending if event["type"] == "file")
        self._send_files(directory / FILES, run_id, list(paths))
        for event in [event for event in pending if event["type"] == "finish"][-1:]:
            self.client.set_terminated(run_id, event["status"], event["time"])

    def _send_values(
        self, run_id: str, metrics: "list[Metric]", params: "list[Param]", tags: "list[RunTag]"
    ) -> None:
        while metrics or params or tags:
            self.client.log_batch(run_id, metrics[:_METRICS], params[:_PARAMS], tags[:_TAGS])
            metrics, params, tags = metrics[_METRICS:], params[_PARAMS:], tags[_TAGS:]

    def _send_files(self, folder: Path, run_id: str, paths: list[str]) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not paths:
            return
        # Not client.log_artifact: it remembers, per run, the address that it was first used
        # with, and a private server has another one each time.
        location = self.client.get_run(run_id).info.artifact_uri
        store: Any = get_artifact_repository(location, tracking_uri=self.client.tracking_uri)
        for path in paths:
            if (folder / path).exists():
                store.log_artifact(str(folder / path), posixpath.dirname(path) or None)
            else:  # the run was started over since its events were read
                log.warning("%s is gone and was not forwarded", folder / path)


def find_experiment(client: "MlflowClient") -> Any:
    """MLflow's experiment "visionloop", created or restored if need be."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            client.create_experiment(EXPERIMENT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another forwarder was first
                raise
        experiment = client.get_experiment_by_name(EXPERIMENT)
    elif experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment


def _metrics(events: list[Event], start: int) -> "list[Metric]":
    """New metrics; of two with one name and step (a step killed and run again) the first."""
    from mlflow.entities import Metric

    seen: set[tuple[str, int]] = set()
    metrics = []
    for event in events:
        if event["type"] != "metrics":
            continue
        for name, value in event["values"].items():
            step = event["step"]
            if step is not None and (name, step) in seen:
                continue
            seen.add((name, step or 0) if step is not None else (name, -1))
            if event["n"] >= start:
                metrics.append(Metric(_name(name), value, event["time"], step or 0))
    return metrics


def _params(events: list[Event], start: int) -> "tuple[list[Param], list[RunTag]]":
    """New parameters, each once: MLflow refuses a batch that repeats one, as a resumed step does.

    MLflow's cannot change: a later value becomes the tag `latest.<name>`.
    """
    from mlflow.entities import Param, RunTag

    first: dict[str, str] = {}
    params: dict[str, Param] = {}
    changed: dict[str, RunTag] = {}
    for event in events:
        if event["type"] != "params":
            continue
        for name, value in event["values"].items():
            name, text = _name(name), str(value)[:_PARAM_LENGTH]
            if first.setdefault(name, text) != text and event["n"] >= start:
                tag = f"latest.{name}"[:_NAME_LENGTH]
                changed[tag] = RunTag(tag, text[:_TAG_LENGTH])
            elif event["n"] >= start:
                params[name] = Param(name, text)
    return list(params.values()), list(changed.values())


def _tags(pending: list[Event]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    values: dict[str, str] = {}
    for event in pending:
        if event["type"] == "tags":
            values |= event["values"]
    return [RunTag(_name(name), value[:_TAG_LENGTH]) for name, value in values.items()]


def _dataset(event: Event) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.types.schema import ColSpec, Schema

    counts = event["counts"]
    schema = Schema([ColSpec("binary", "image"), ColSpec("string", "label")])
    dataset = Dataset(
        name=event["name"],
        digest=event["digest"][:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": event["source"]}),
        schema=json.dumps({"mlflow_colspec": schema.to_dict()}),
        profile=json.dumps({"num_rows": sum(counts.values()), **counts}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _name(name: str) -> str:
    """A name MLflow accepts: classes of a user's folder may hold any character."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", name)).strip("/")[:_NAME_LENGTH]
