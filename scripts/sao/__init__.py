"""The code that the scripts share. Nothing in here knows about Snakemake, and data modules never import torch."""
