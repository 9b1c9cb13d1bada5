"""Reading the results of a profile from outside of its cluster."""
