"""The layers: a file a network, and the table of architectures."""
