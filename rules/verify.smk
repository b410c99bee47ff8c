# Whether everything on the disk is still what it was made as.


# It makes no file, a benchmark neither, and so always runs; it is part of no other target.
rule verify:
    log:
        "results/logs/verify.log",
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=mb(1000),
        runtime=minutes(240),
    message:
        "Check everything under results/ that has a digest"
    shell:
        r"""
        python "$SCRIPTS/verify.py" \
            --results results \
            --threads {threads} \
            --log {log:q}
        """
