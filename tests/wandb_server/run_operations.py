"""The GraphQL operations of runs, their files and artifacts: variables in, `data` out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.wandb_server.project_operations import RefusedError
from tests.wandb_server.state import EVENTS, HISTORY, OUTPUT, Artifact, Run, State
from tests.wandb_server.uploads import Uploads

UPSERTED = {"groupName": "group", "program": "jobProgram", "repo": "jobRepo"} | {
    name: name for name in ("displayName", "jobType", "tags", "notes", "description", "commit", "host", "state")
}
"""Variable of an upsert, and what a run's node calls it."""


class RunOperations:
    """Carries them out on a state."""

    def __init__(self, state: State, uploads: Uploads, default_entity: str) -> None:
        self._state, self._uploads, self._entity = state, uploads, default_entity
        self.by_name: dict[str, Callable[[dict[str, Any]], Any]] = {
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "RunStoppedStatus": lambda asked: {"project": {"run": {"stopped": False}}},
            "Run": self._run,
            "Runs": self._runs,
            "DeleteRun": self._delete,
            "CreateRunFiles": self._create_files,
            "MarkRunFilesUploaded": lambda asked: {"markRunFilesUploaded": {"success": True}},
            "ArtifactType": lambda asked: {"project": {"artifact": None}},
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_manifest,
            "UpdateArtifactManifest": self._update_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
            "UseArtifact": lambda asked: {"useArtifact": {"artifact": {"id": asked["input"]["artifactID"]}}},
        }

    def _resume_status(self, asked: dict[str, Any]) -> Any:
        entity, project = asked.get("entity") or self._entity, asked["project"]
        if (entity, project) not in self._state.projects:
            return {"model": None}
        run = self._state.run(entity, project, asked["name"])
        node = {"id": f"project:{project}", "name": project, "entity": {"id": entity, "name": entity}}
        return {"model": node | {"bucket": run and _bucket(run)}}

    def _upsert(self, asked: dict[str, Any]) -> Any:
        entity, project = asked.get("entity") or self._entity, asked.get("project") or "uncategorized"
        if entity in self._state.forbidden:
            raise RefusedError("permission denied", 403)
        if f"{entity}/{project}/{asked['name']}" in self._state.deleted:
            words = f"run {entity}/{project}/{asked['name']} was previously created and deleted; try a new run name"
            raise RefusedError(words)
        known = next((run for run in self._state.runs.values() if run.storage_id == asked.get("id")), None)
        known = known or self._state.run(entity, project, asked["name"])
        run = known or self._state.run(entity, project, asked["name"], create=True)
        assert run is not None
        run.upserts += 1
        run.fields |= {name: asked[variable] for variable, name in UPSERTED.items() if asked.get(variable) is not None}
        if asked.get("config"):
            run.raw_config = json.loads(asked["config"])
        if asked.get("summaryMetrics"):
            run.lines["wandb-summary.json"] = [asked["summaryMetrics"]]
        if known is None:
            run.fields.setdefault("displayName", run.name)
        run.finished = False
        return {"upsertBucket": {"bucket": _bucket(run), "inserted": known is None}}

    def _run(self, asked: dict[str, Any]) -> Any:
        if (asked["entity"], asked["project"]) not in self._state.projects:
            return {"project": None}
        run = self._state.run(asked["entity"], asked["project"], asked["name"])
        return {"project": {"run": run and _bucket(run)}}

    def _runs(self, asked: dict[str, Any]) -> Any:
        """All of them on one page; of the filters groups and values of the config are understood."""
        where = (asked.get("entity") or self._entity, asked["project"])
        filters = json.loads(asked.get("filters") or "{}")
        unknown = {name for name in filters if name != "group" and not name.startswith("config.")}
        assert not unknown, f"the server of the tests does not know these filters: {unknown}"
        here = [run for run in self._state.runs.values() if (run.entity, run.project) == where]
        found = [run for run in here if all(_value(run, name) == value for name, value in filters.items())]
        edges = [{"node": _bucket(run), "cursor": run.storage_id} for run in found]
        page = {"endCursor": None, "hasNextPage": False}
        runs = {
            "internalId": "1",
            "runCount": len(found),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": page},
        }
        return {"project": runs if where in self._state.projects else None}

    def _delete(self, asked: dict[str, Any]) -> Any:
        found = next(run for run in self._state.runs.values() if run.storage_id == asked["id"])
        self._state.delete(found.path)
        return {"deleteRun": {"clientMutationId": None}}

    def _create_files(self, asked: dict[str, Any]) -> Any:
        run = self._state.run(asked["entity"], asked["project"], asked["run"])
        assert run is not None
        files = [{"name": name, "uploadUrl": self._uploads.address(run.files, name)} for name in asked["files"]]
        return {"createRunFiles": {"runID": run.storage_id, "uploadHeaders": [], "files": files}}

    def _create_artifact(self, asked: dict[str, Any]) -> Any:
        given = asked["input"]
        collection = "/".join((given["entityName"], given["projectName"], given["artifactCollectionName"]))
        versions = [each for each in self._state.artifacts.values() if each.collection == collection]
        same = next((each for each in versions if each.digest == given["digest"] and each.state == "COMMITTED"), None)
        artifact = same or Artifact(self._state.new_id("Artifact"), collection, given["digest"])
        self._state.artifacts[artifact.id] = artifact
        latest = {"id": versions[-1].id} if versions else None
        node = {"id": artifact.id, "state": artifact.state, "artifactSequence": {"latestArtifact": latest}}
        return {"createArtifact": {"artifact": node}}

    def _create_manifest(self, asked: dict[str, Any]) -> Any:
        artifact = self._state.artifacts[asked["artifactID"]]
        file = {
            "id": artifact.id,
            "uploadUrl": self._uploads.address(artifact.files, asked["name"]),
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest:{artifact.id}", "file": file}}}

    def _update_manifest(self, asked: dict[str, Any]) -> Any:
        artifact = self._state.artifacts[asked["artifactManifestID"].partition(":")[2]]
        url = self._uploads.address(artifact.files, "wandb_manifest.json")
        manifest = {
            "id": asked["artifactManifestID"],
            "file": {"id": artifact.id, "uploadUrl": url, "uploadHeaders": []},
        }
        return {"updateArtifactManifest": {"artifactManifest": manifest}}

    def _create_artifact_files(self, asked: dict[str, Any]) -> Any:
        edges = []
        for given in asked["input"]["artifactFiles"]:
            artifact = self._state.artifacts[given["artifactID"]]
            node: dict[str, Any] = {
                "storagePath": f"files/{given['name']}",
                "uploadUrl": self._uploads.address(artifact.files, given["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": artifact.id},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, asked: dict[str, Any]) -> Any:
        artifact = self._state.artifacts[asked["artifactID"]]
        artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


def _value(run: Run, name: str) -> Any:
    return run.group if name == "group" else run.config.get(name.removeprefix("config."))


def _bucket(run: Run) -> dict[str, Any]:
    """A run as the server describes it."""
    own = run.raw_config.get("_wandb", {}).get("value", {})
    project = {"id": f"project:{run.project}", "name": run.project, "entity": {"id": run.entity, "name": run.entity}}
    return run.fields | {
        "id": run.storage_id,
        "name": run.name,
        "projectId": "1",
        "state": "finished" if run.finished else "running",
        "config": json.dumps(run.raw_config),
        "wandbConfig": json.dumps({"t": own["t"]} if "t" in own else {}),
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.lines.get(HISTORY, [])),
        "eventsLineCount": len(run.lines.get(EVENTS, [])),
        "logLineCount": len(run.lines.get(OUTPUT, [])),
        "historyTail": json.dumps(run.lines.get(HISTORY, [])[-1:]),
        "eventsTail": json.dumps(run.lines.get(EVENTS, [])[-1:]),
        "tags": run.tags,
        "sweepName": None,
        "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00",
        "historyKeys": {"keys": {}, "lastStep": run.rows[-1].get("_step", -1) if run.rows else -1},
        "readOnly": False,
        "project": project,
    }
