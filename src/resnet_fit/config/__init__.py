"""Reading configs: YAML with its places, overrides, parts by name, mistakes in one line.

The settings themselves are defined by the parts that they describe, in the packages above.
"""
