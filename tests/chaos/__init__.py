"""Chaos: a digits sweep is killed, starved and damaged at random instants, and must lose nothing (`make chaos`)."""
