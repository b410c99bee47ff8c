# Check whether every file on the disk is still as it was made.


# This rule makes no file, not even a benchmark, so it always runs. No other target includes it.
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
