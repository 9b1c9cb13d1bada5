"""How the betons of a data set are made from its usual files: `bo-sweep prepare`."""
