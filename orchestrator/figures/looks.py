"""How phases look, wherever they are drawn."""

from __future__ import annotations

# Okabe and Ito, "Color Universal Design" (2008), told apart under every common colour blindness; letters say
# it again.
PHASE_LOOK = {
    "underfit": ("#56B4E9", "U"),
    "benign": ("#009E73", "B"),
    "tempered": ("#F0E442", "T"),
    "catastrophic": ("#D55E00", "C"),
    "undecided": ("#FFFFFF", "?"),
}
"""Colour and letter of each phase."""
