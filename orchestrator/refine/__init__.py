"""Refinement: cells beside the grid, placed where it is least sure on which side of a level they lie."""
