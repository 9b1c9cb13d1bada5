"""What a launch on a cluster does and says, in plain words; and ending it."""
