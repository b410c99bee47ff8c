# The page and folder of all samples.


rule collect:
    input:
        tables=expand("results/renders/{run}.csv", run=PLAN.rendering.all()),
        renders=ancient(expand("results/renders/{run}", run=PLAN.rendering.all())),
        spectrograms=ancient(expand("results/spectrograms/{run}", run=PLAN.rendering.all())),
        beside=ask(PLAN.pages.beside, ancient),
        pages=ancient(PLAN.data.report_pages()),
        evaluation="results/evaluation/summary.json",
        steps=expand("results/evaluation/{run}.svg", run=PLAN.evaluation.by_step()),
        trainings=expand("results/checkpoints/{run}/training.json", run=PLAN.runs.runs),
        curves=expand("results/checkpoints/{run}/loss.svg", run=PLAN.runs.runs),
        cards=ancient(PLAN.pages.cards()),
        reports=ancient(PLAN.data.reports()),
        datasets=ancient(PLAN.pages.datasets()),
        # An input only so that it is made, too: `listen.enabled`.
        listen=ancient(PLAN.listening.page()),
    output:
        report(
            directory("results/samples"),
            htmlindex="index.html",
            caption="../report/samples.rst",
            category="Samples",
            labels={"page": "samples to listen to"},
        ),
    log:
        "results/logs/collect.log",
    benchmark:
        "results/benchmarks/collect.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        # One megabyte of tables of renders becomes ten megabytes of page.
        mem_mb=mb(600, per_mb=50, of="tables"),
        runtime=minutes(10, per_row=0.005, of="tables"),
    params:
        runs=PLAN.rendering.labels(),
        dropped=PLAN.pages.dropped(),
        corpora=PLAN.pages.corpora(),
        settings=settings(PLAN.pages.rendering_settings),
        template=content_key(SCRIPTS / "sao" / "pages" / "samples.html.j2"),
        code=code_hash(SCRIPTS / "collect.py"),
    message:
        "Collect the samples of all runs: results/samples/index.html"
    shell:
        r"""
        python "$SCRIPTS/collect.py" \
            --run {params.runs:q} \
            --table {input.tables:q} \
            --render {input.renders:q} \
            --spectrograms {input.spectrograms:q} \
            --evaluation {input.evaluation:q} \
            --steps {input.steps:q} \
            --training {input.trainings:q} \
            --curve {input.curves:q} \
            --settings {params.settings:q} \
            --report {input.reports:q} \
            --dropped {params.dropped:q} \
            --corpus {params.corpora:q} \
            --output {output:q} \
            --log {log:q}
        """
