"""From a resolved config to what the rules need: paths, settings and resources. Knows nothing of Snakemake."""
