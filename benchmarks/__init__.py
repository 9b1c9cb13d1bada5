"""What is claimed about speed, runnable: `make bench`, or `python -m benchmarks NAME`.

Every module beside this one is a subject: it has a docstring, whose first line is its title, and `measure(quick)`,
which yields figures (benchmarks/measuring/figures.py). A new subject is one new file. What subjects share is in
`benchmarks/measuring/`. The package `benchmarks/gpu/` is apart: one script for a GPU machine (`make bench-gpu`).

Machines are noisy, so things are compared side by side: taken in turn in one process, round by round, and quoted as
ratios within a round, with their number, smallest, median and largest value. No time is asserted anywhere.
"""
