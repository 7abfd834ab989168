"""From a config to a fitted `paddle.Model`, and the parts to do it by hand."""
