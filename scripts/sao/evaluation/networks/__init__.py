"""Published networks that embeddings compute with, as small torch modules. The widths of a network are read from its weights.

Their packages are not maintained, or bring TensorFlow with them. Keys are those of the published files, which each module
names. The weights are checked and converted by rule `weights`.
"""
