# The page and folder of all samples, and the votes of those who listened.

# What the page is made of, beside the code: its template, styles and scripts.
PAGE_PARTS = [
    content_key(SCRIPTS / "sao" / "pages" / name)
    for name in ("samples.html.j2", "player.html.j2", "page.css", "player.js", "samples.js")
]


# Made only if there are files in results/votes, where listeners put what the page saves.
rule votes:
    input:
        votes=local(PLAN.pages.votes()),
        tables=expand("results/renders/{run}.csv", run=PLAN.pages.shown()),
        renders=ancient(expand("results/renders/{run}", run=PLAN.pages.shown())),
        beside=ask(PLAN.pages.beside, ancient),
    output:
        votes="results/evaluation/votes.json",
        table="results/evaluation/votes.csv",
    log:
        "results/logs/votes.log",
    benchmark:
        "results/benchmarks/votes.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(600, per_mb=50, of="tables"),
        runtime=minutes(10, per_row=0.005, of="tables"),
    params:
        runs=PLAN.pages.labels(),
        settings=to_text(PLAN.pages.vote_settings()),
        code=code_of("votes.py"),
    message:
        "Count the votes of blind tests: results/evaluation/votes.csv"
    shell:
        r"""
        python "$SCRIPTS/votes.py" \
            --votes {input.votes:q} \
            --run {params.runs:q} \
            --table {input.tables:q} \
            --render {input.renders:q} \
            --settings {params.settings:q} \
            --output {output.votes:q} \
            --summary {output.table:q} \
            --log {log:q}
        """


rule collect:
    input:
        tables=expand("results/renders/{run}.csv", run=PLAN.pages.shown()),
        renders=ancient(expand("results/renders/{run}", run=PLAN.pages.shown())),
        spectrograms=ancient(expand("results/spectrograms/{run}", run=PLAN.pages.shown())),
        votes=PLAN.pages.counted(),
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
        runs=PLAN.pages.labels(),
        dropped=PLAN.pages.dropped(),
        corpora=PLAN.pages.corpora(),
        settings=settings(PLAN.pages.rendering_settings),
        parts=PAGE_PARTS,
        code=code_of("collect.py"),
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
            --votes {input.votes:q} \
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
