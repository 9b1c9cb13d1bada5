"""What the subjects share: figures, the table, child processes, the plain loop and the timed launch."""
