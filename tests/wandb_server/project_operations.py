"""The GraphQL operations around runs: who asks, what the server can do, projects, views, charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.wandb_server.state import State, View

FEATURES = ("FILESTREAM_GZIP",)
"""What the server says it can do, of what wandb asks about."""


class RefusedError(Exception):
    """An operation that the server does not carry out; the message goes into `errors`."""

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


class ProjectOperations:
    """Carries them out on a state."""

    def __init__(self, state: State, default_entity: str) -> None:
        self._state, self._entity = state, default_entity
        enabled = [{"name": name, "isEnabled": True} for name in FEATURES]
        self.by_name: dict[str, Callable[[dict[str, Any]], Any]] = {
            "Viewer": lambda asked: {"viewer": self._viewer()},
            "GetViewer": lambda asked: {"viewer": self._viewer()},
            "GetDefaultEntity": lambda asked: {"viewer": self._viewer()},
            "ServerFeaturesQuery": lambda asked: {"serverInfo": {"features": enabled}},
            "ServerInfo": lambda asked: {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}}},
            "OrgFeatureFlags": lambda asked: {"organization": {"featureFlags": []}},
            "FetchOrgEntityFromEntity": lambda asked: {"entity": {"organization": None}},
            "GetProjects": self._projects,
            "GetProject": lambda asked: {"project": self._project(asked["entity"], asked["name"])},
            "ProjectInternalId": lambda asked: {"project": self._project(asked["entityName"], asked["projectName"])},
            "CreateProject": self._create_project,
            "ProjectViews": self._views,
            "View": self._views,
            "SpecificReport": lambda asked: {"view": self._node(self._state.views[asked["reportId"]])},
            "upsertView": self._upsert_view,
            "UpsertView2": self._upsert_view,
            "CreateCustomChart": self._create_chart,
        }

    def _viewer(self) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": self._entity}}]}
        names = {"name": "Ada", "username": "ada", "email": "ada@example.org", "entity": self._entity}
        empty = {"admin": False, "flags": "{}", "deletedAt": None, "apiKeys": {"edges": []}}
        return {"id": "User:1", **names, "teams": teams, **empty}

    def _project(self, entity: str, name: str) -> dict[str, Any] | None:
        if (entity, name) not in self._state.projects:
            return None
        made = {
            "createdAt": "2026-01-01T00:00:00",
            "isBenchmark": False,
            "user": self._viewer(),
            "__typename": "Project",
        }
        return {"id": f"project:{entity}/{name}", "internalId": "1", "name": name, "entityName": entity, **made}

    def _projects(self, asked: dict[str, Any]) -> Any:
        here = sorted(name for entity, name in self._state.projects if entity == asked["entity"])
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        edges = [{"node": self._project(asked["entity"], name)} for name in here]
        return {"models": {"pageInfo": page, "edges": edges}}

    def _create_project(self, asked: dict[str, Any]) -> Any:
        entity, name = asked["input"].get("entityName") or asked["input"]["entity_name"], asked["input"]["name"]
        self._state.projects.add((entity, name))
        node = self._project(entity, name)
        return {"result": {"project": node, "model": node, "inserted": True}}

    def _views(self, asked: dict[str, Any]) -> Any:
        entity, project = asked.get("entity") or asked["entityName"], asked.get("project") or asked.get("projectName")
        if (entity, project) not in self._state.projects:
            return {"project": None}
        kind, name = asked.get("viewType", "runs"), asked.get("viewName")
        found = [
            self._node(view)
            for view in self._state.views.values()
            if (view.entity, view.project, view.type) == (entity, project, kind) and name in (None, view.name)
        ]
        edges = [{"node": node, "cursor": node["id"]} for node in found]
        return {"project": {"allViews": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}}

    def _upsert_view(self, asked: dict[str, Any]) -> Any:
        entity, project = asked["entityName"], asked["projectName"]
        if (entity, project) not in self._state.projects:
            raise RefusedError(f"project {entity}/{project} not found")
        if asked.get("id") and asked["id"] not in self._state.views:
            raise RefusedError(f"view {asked['id']} not found")
        names = ("type", "name", "displayName", "description", "spec")
        given = View(asked.get("id") or self._state.new_id("View"), entity, project, *(asked[name] for name in names))
        known = self._state.views.get(given.id)
        given.saves += known.saves if known else 0
        self._state.views[given.id] = given
        return {"upsertView": {"view": self._node(given), "inserted": known is None}}

    def _node(self, view: View) -> dict[str, Any]:
        times = {"createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00"}
        text = {"displayName": view.display_name, "description": view.description, "spec": view.spec}
        user = {"username": "ada", "photoUrl": None, "email": "ada@example.org"}
        project = self._project(view.entity, view.project)
        return {"id": view.id, "type": view.type, "name": view.name, **text, **times, "user": user, "project": project}

    def _create_chart(self, asked: dict[str, Any]) -> Any:
        """What the real server does with a name that is taken is not documented: this one refuses."""
        chart = f"{asked['entity']}/{asked['chartName']}"
        if chart in self._state.charts:
            raise RefusedError(f"a chart named {chart} already exists")
        self._state.charts[chart] = asked
        return {"createCustomChart": {"chart": {"id": chart}}}
