"""From evaluations to runs, cells, slices and boundaries: tables only, drawn elsewhere."""
