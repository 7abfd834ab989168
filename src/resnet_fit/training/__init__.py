"""The parts of a training: losses, metrics, optimizers, schedules, mixed precision."""
