"""What to run: search spaces, the runs they stand for, and exact parameter counts. No torch, no ray."""
