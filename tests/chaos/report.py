"""What a session says at its end: one table, and one JSON document."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.chaos.session import Session

PHASES = ("start", "training", "end")


def as_document(session: Session) -> dict[str, Any]:
    """Counts by kind, and every round."""
    kinds = dict.fromkeys(each.kind for each in session.rounds)
    return {
        "seed": session.seed,
        "rounds": len(session.rounds),
        "sweeps": session.sweeps,
        "events": {event: session.events[event] for event in ("checkpointed", "resumed")},
        "problems": session.problems,
        "kinds": {kind: _of_kind(session, kind) for kind in kinds},
        "each": [
            {
                "number": each.number,
                "kind": each.kind,
                "seed": each.seed,
                "waited": round(each.waited, 2),
                "phase": each.phase,
                "did": each.did,
                "code": each.code,
                "seconds": round(each.seconds, 1),
                "leftovers": each.leftovers,
                "problems": each.problems,
            }
            for each in session.rounds
        ],
    }


def as_text(document: dict[str, Any]) -> str:
    """The table."""
    lines = [f"{'kind':20s} rounds  hit at start / training / end  missed  problems  seconds"]
    for kind, found in document["kinds"].items():
        hits = " / ".join(f"{found['hits'][phase]}" for phase in PHASES)
        lines.append(
            f"{kind:20s} {found['rounds']:6d}  {hits:>29s}  {found['missed']:6d}  {found['problems']:8d}"
            f"  {found['seconds']:7.0f}"
        )
    events = document["events"]
    lines.append(
        f"{document['rounds']} rounds over {document['sweeps']} sweeps, each equal to the undisturbed one: "
        f"{len(document['problems'])} problems. {events['checkpointed']} checkpoints, {events['resumed']} runs resumed."
    )
    return "\n".join(lines)


def _of_kind(session: Session, kind: str) -> dict[str, Any]:
    rounds = [each for each in session.rounds if each.kind == kind]
    hits = Counter(each.phase for each in rounds if each.hit)
    return {
        "rounds": len(rounds),
        "hits": {phase: hits[phase] for phase in PHASES},
        "missed": sum(not each.hit for each in rounds),
        "problems": sum(len(each.problems) for each in rounds),
        "seconds": sum(each.seconds for each in rounds),
    }
