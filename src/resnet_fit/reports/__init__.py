"""What shows data, runs and this machine to people."""
