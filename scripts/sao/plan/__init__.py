"""Turn a resolved config into the paths, settings and resources that the rules need. Knows nothing about Snakemake."""
