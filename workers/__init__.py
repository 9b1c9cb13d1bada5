"""How a pack of runs is trained: data, labels, models, training, metrics."""
