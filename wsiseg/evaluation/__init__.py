"""How well a model does on a data set: figures of its map, with and without gate, and of the gate itself."""
