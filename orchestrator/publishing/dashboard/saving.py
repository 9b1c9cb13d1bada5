"""Put a planned dashboard on W&B: made where there is none, else brought up to date."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.publishing.dashboard.plan import Dashboard
from orchestrator.publishing.dashboard.views import make_report, make_workspace
from orchestrator.publishing.target import Target

if TYPE_CHECKING:
    from wandb import Api

SECONDS, RETRIES = 20.0, 4
"""Of one request, and how often W&B's client repeats it: a command does not wait as a publisher does."""


@dataclass(frozen=True)
class Saved:
    """Where the dashboard is.

    Attributes:
        made: which of "workspace" and "report" were not there before.
        doubtful_charts: what W&B said to charts that it did not make; no harm if it has them already.
    """

    workspace: str
    report: str
    made: tuple[str, ...]
    doubtful_charts: tuple[str, ...]


class WandbError(ConnectionError):
    """W&B cannot be reached, refused the key, or answered with an error."""


def save_dashboard(dashboard: Dashboard, target: Target) -> Saved:
    """Make the workspace and the report of a sweep, or update those that are there; what was edited there is lost.

    They are found by what the sweep itself gives: the workspace by its address, the report by its description.

    Raises:
        ValueError: the package wandb-workspaces or the key is missing, WANDB_MODE keeps from W&B, or the project is not
            there.
        WandbError: W&B cannot be reached, or refused.
    """
    if target.connection in ("offline", "disabled"):
        raise ValueError(
            f"WANDB_MODE is {target.connection}, and a dashboard is made on W&B itself: unset it, or look at --dry-run"
        )
    with _wandb_errors():
        api = _connect()
        entity = target.entity or api.default_entity
        if entity is None:
            raise ValueError("the key's owner has no default entity; name a user or team with --entity")
        _need_project(api, entity, target.project, dashboard.sweep)
        workspace = _found_workspace(api, dashboard, entity, target.project)
        report = _found_report(api, dashboard, entity, target.project)
        in_use = json.dumps([view.spec for view in (workspace, report) if view])
        doubtful = tuple(_make_charts(api, dashboard, entity, in_use))  # before the views that show them
        addresses = _save(dashboard, entity, target.project, workspace, report)
        made = tuple(name for name, view in (("workspace", workspace), ("report", report)) if view is None)
        return Saved(*addresses, made, doubtful)


def _connect() -> Api:
    """W&B's client, with the key that is configured. It never asks for one, and prints nothing."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ValueError("the dashboard needs wandb-workspaces: pip install 'bo-sweep[dashboard]'")
    import wandb
    from wandb.sdk.lib.wbauth import authenticate_session

    settings = wandb.Settings(
        silent=True, x_graphql_timeout_seconds=SECONDS, x_graphql_retry_max=RETRIES, x_graphql_retry_wait_max_seconds=4
    )
    wandb.setup(settings=settings)
    host = wandb.setup().settings.base_url
    if authenticate_session(host=host, source="bo-sweep", prompt=False) is None:
        raise ValueError(
            f"there is no key for {host}. Log in with: wandb login (or set WANDB_API_KEY). "
            "What would be made is shown, without a key, by --dry-run"
        )
    return wandb.Api()


@contextmanager
def _wandb_errors() -> Iterator[None]:
    """Turn what W&B's packages raise into one message that says what to do."""
    try:
        yield
    except (ValueError, WandbError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith("wandb"):
            raise
        raise WandbError(_told(error)) from error


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    # W&B's client calls it a failed authentication, too, where its server did not answer
    unanswered = any(words in text for words in ("giving up after", "timed out", "error occurred while checking"))
    if "permission denied" in text.lower():
        return (
            f"W&B does not let this key write there ({text}). Name a user or team and a project that it may write to, "
            "with --entity and --project, or ask its owner for another role"
        )
    refused = _status(error) in (401, 403) or type(error).__name__ == "AuthenticationError"
    if refused and not unanswered:
        return f"W&B refused the key ({text}). Log in again with: wandb login --relogin"
    return f"W&B could not be reached, or refused ({text}). Nothing is lost: give the command again later"


def _status(error: Exception) -> int:
    """HTTP status of an answer of W&B; 0 where there was none, or where it was 200 with errors in it."""
    return int(getattr(getattr(error, "response", None), "http_status", 0) or 0)


def _need_project(api: Api, entity: str, project: str, sweep: str) -> None:
    if project not in {known.name for known in api.projects(entity)}:
        raise ValueError(
            f"W&B has no project {entity}/{project} that this key may see, so nothing was published there yet. "
            f"Publish first: bo-sweep wandb publish {sweep} (or name another one with --entity and --project)"
        )


def _found_workspace(api: Api, dashboard: Dashboard, entity: str, project: str) -> Any | None:
    views = api.reports(f"{entity}/{project}", name=_view_name(dashboard))
    views.variables["viewType"] = "project-view"  # workspaces are listed as reports are, under another type
    return next(iter(views), None)


def _found_report(api: Api, dashboard: Dashboard, entity: str, project: str) -> Any | None:
    reports = api.reports(f"{entity}/{project}")
    return next((report for report in reports if report.description == dashboard.description), None)


def _view_name(dashboard: Dashboard) -> str:
    return f"nw-{dashboard.slug}-v"


def _make_charts(api: Api, dashboard: Dashboard, entity: str, in_use: str) -> Iterator[str]:
    """Make the charts that no view of ours uses yet; gives what W&B said to those that it did not make."""
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    for chart in dashboard.charts:
        if json.dumps(f"{entity}/{chart.name}") in in_use:
            continue
        try:
            api.create_custom_chart(entity, chart.name, chart.title, "vega2", "private", chart.spec)
        except WandbApiFailedError as error:
            if error.response is None or _status(error) in (401, 403) or _status(error) >= 500:
                raise
            # its name is its content, so one that is there already is the same
            if not any(word in str(error).lower() for word in ("exist", "duplicate", "unique", "taken")):
                yield f"{entity}/{chart.name}: {' '.join(str(error).split())[:200]}"


def _save(
    dashboard: Dashboard, entity: str, project: str, found_workspace: Any | None, found_report: Any | None
) -> tuple[str, str]:
    workspace = make_workspace(dashboard, entity, project)
    workspace._internal_name = _view_name(dashboard)
    workspace._internal_id = found_workspace.id if found_workspace else ""
    workspace.save()
    report = make_report(dashboard, entity, project)
    report.id = found_report.id if found_report else ""
    report.save()
    return str(workspace.url), str(report.url)
