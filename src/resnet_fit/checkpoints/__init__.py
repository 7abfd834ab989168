"""Checkpoints: all that a training needs to go on, in a folder that is whole or not there."""
