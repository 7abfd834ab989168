"""A trained network as a file that other programs run, checked against the network itself."""
