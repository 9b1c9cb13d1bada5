"""Vega-Lite charts that W&B draws from the tables of a sweep's summary run.

A chart names no columns: it has `${field:...}` and `${string:...}` where W&B puts those that a panel chooses, so one
chart serves every metric of every sweep. Cells without a number are grey; nothing is interpolated between cells.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from orchestrator.analysis.definitions import PHASES
from orchestrator.figures.looks import PHASE_LOOK

PLACEHOLDER = re.compile(r"\$\{(field|string):([a-z_]+)\}")
GREY, INK = "#ececec", "#202020"
COLOUR_MAP = "cividis"
LOOK = {**PHASE_LOOK, "diverged": ("#c8c8c8", "\N{DAGGER}"), "missing": (GREY, "")}
"""Colour and letter of each phase, as in the figures."""


@dataclass(frozen=True)
class Chart:
    """A chart as W&B keeps it under an entity.

    Its name ends in a hash of what it draws, so a changed chart is another one, and the same one is never made twice.
    """

    kind: str
    title: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:8]
        return f"bo-sweep-{self.kind}-{digest}"

    @property
    def fields(self) -> frozenset[str]:
        """What a panel has to name columns for."""
        return self._placeholders("field")

    @property
    def strings(self) -> frozenset[str]:
        """What a panel has to give texts for."""
        return self._placeholders("string")

    def _placeholders(self, kind: str) -> frozenset[str]:
        return frozenset(name for of, name in PLACEHOLDER.findall(json.dumps(self.spec)) if of == kind)


def _field(name: str) -> str:
    return f"${{field:{name}}}"


def _string(name: str) -> str:
    return f"${{string:{name}}}"


def _spec(layers: list[dict[str, Any]], encoding: dict[str, Any], **more: Any) -> dict[str, Any]:
    on_grid = [{"field": _field("in_grid"), "equal": yes} for yes in (True, "true", 1)]  # as W&B may hand it on
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"name": "wandb"},
        "title": {"text": _string("title"), "fontSize": 12},
        "width": "container",
        "height": "container",
        "autosize": {"type": "fit", "contains": "padding"},
        "transform": [{"filter": {"or": on_grid}}, *more.pop("transform", [])],
        "encoding": encoding,
        "layer": layers,
        "config": {"view": {"stroke": None}, "axis": {"grid": False}},
        **more,
    }


def _noise_and_ratio() -> dict[str, Any]:
    ratio_axis = {"format": ".3g", "labelAngle": 0, "labelOverlap": True}
    return {
        "x": {"field": _field("ratio"), "type": "ordinal", "title": "p/n", "axis": ratio_axis},
        "y": {"field": _field("noise"), "type": "ordinal", "title": "noise rate", "sort": "descending"},
    }


def _tooltip(*fields: tuple[str, str, str | None]) -> list[dict[str, Any]]:
    kinds: list[dict[str, Any]] = []
    for name, title, form in fields:
        kind = {"type": "nominal"} if form is None else {"type": "quantitative", "format": form}
        kinds.append({"field": _field(name), "title": title} | kind)
    return kinds


_CELL = (("noise", "noise rate", ".4g"), ("ratio", "p/n", ".4g"))
_MEAN = (("value", "mean", ".4f"), ("low", "95 % from", ".4f"), ("high", "to", ".4f"), ("n", "finished seeds", "d"))
_SQUARE = {"type": "rect", "stroke": "white", "strokeWidth": 1}


def _heat_map() -> Chart:
    known = [{"filter": {"field": _field("value"), "valid": True}}]
    number = {"field": _field("value"), "type": "quantitative", "format": ".3f"}
    colour = {
        "field": _field("value"),
        "type": "quantitative",
        "scale": {"scheme": COLOUR_MAP},
        "legend": {"title": _string("unit")},
    }
    # columns under names of our own, as what W&B puts into expressions for its placeholders is not documented
    range_ = [{"op": op, "field": _field("value"), "as": name} for op, name in (("min", "least"), ("max", "most"))]
    own = [
        {"joinaggregate": range_},
        {
            "joinaggregate": [{"op": "mean", "field": _field("value"), "as": "here"}],
            "groupby": [_field("noise"), _field("ratio")],
        },
    ]
    dark = "datum.here < 0.55 * datum.least + 0.45 * datum.most"
    ink = {"condition": {"test": dark, "value": "white"}, "value": INK}
    layers: list[dict[str, Any]] = [
        {"mark": _SQUARE | {"color": GREY}, "encoding": {"tooltip": _tooltip(*_CELL, ("phase", "phase", None))}},
        {
            "transform": known,
            "mark": _SQUARE,
            "encoding": {"color": colour, "tooltip": _tooltip(*_CELL, *_MEAN, ("phase", "phase", None))},
        },
        {"transform": known, "mark": {"type": "text", "fontSize": 9}, "encoding": {"text": number, "color": ink}},
    ]
    return Chart("heat-map", "bo-sweep: heat map of cells", _spec(layers, _noise_and_ratio(), transform=own))


def _phase_map() -> Chart:
    letters = [{"phase": phase, "letter": LOOK[phase][1]} for phase in PHASES]
    lookup = {"lookup": _field("phase"), "from": {"data": {"values": letters}, "key": "phase", "fields": ["letter"]}}
    scale = {"domain": list(PHASES), "range": [LOOK[phase][0] for phase in PHASES]}
    colour = {"field": _field("phase"), "type": "nominal", "scale": scale, "legend": {"title": "phase"}}
    shares = [(f"p_{phase}", f"share {phase}", ".2f") for phase in ("underfit", "benign", "tempered", "catastrophic")]
    told = _tooltip(*_CELL, ("phase", "phase", None), *shares, ("n", "finished seeds", "d"))
    layers: list[dict[str, Any]] = [
        {"mark": _SQUARE | {"stroke": "#9a9a9a", "strokeWidth": 0.4}, "encoding": {"color": colour, "tooltip": told}},
        {"mark": {"type": "text", "fontSize": 11, "color": INK}, "encoding": {"text": {"field": "letter"}}},
    ]
    return Chart("phase-map", "bo-sweep: phase of cells", _spec(layers, _noise_and_ratio(), transform=[lookup]))


def _slice() -> Chart:
    legend = {"symbolType": "circle", "symbolOpacity": 1}
    noise = {"field": _field("noise"), "type": "ordinal", "title": "noise rate", "legend": legend}
    encoding = {
        "x": {
            "field": _field("ratio"),
            "type": "quantitative",
            "scale": {"type": "log", "nice": False, "padding": 12},
            "title": "p/n",
        },
        "color": noise | {"scale": {"scheme": "viridis"}},
    }
    mean = {"field": _field("value"), "type": "quantitative", "title": _string("unit")}
    known = [{"filter": {"field": _field("value"), "valid": True}}]
    band = {"y": {"field": _field("low"), "type": "quantitative"}, "y2": {"field": _field("high")}}
    layers: list[dict[str, Any]] = [
        # bands and lines are broken where a cell has no number, as nothing is interpolated
        {"mark": {"type": "area", "opacity": 0.15}, "encoding": band},
        {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": mean}},
        {
            "transform": known,
            "mark": {"type": "point", "filled": True, "size": 30},
            "encoding": {"y": mean, "tooltip": _tooltip(*_CELL, *_MEAN)},
        },
    ]
    return Chart("slice", "bo-sweep: means against p/n, by noise rate", _spec(layers, encoding))


HEAT_MAP, PHASE_MAP, SLICE = _heat_map(), _phase_map(), _slice()
CHARTS = (HEAT_MAP, PHASE_MAP, SLICE)
