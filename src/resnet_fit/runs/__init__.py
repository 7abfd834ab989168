"""Runs: an experiment read from a config, fitted in a folder of its own, and opened again."""
