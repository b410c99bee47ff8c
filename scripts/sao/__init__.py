"""What the scripts share. Nothing in here knows of Snakemake; data modules never import torch."""
