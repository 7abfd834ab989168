"""Export of a trained network to a file for other programs, verified against the network."""
