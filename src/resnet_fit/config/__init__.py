"""Reading configs: YAML with its places, overrides, parts by name, mistakes in one line.

What is read lies above: each part owns its settings.
"""
