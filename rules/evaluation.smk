# Recordings and renders as vectors and as signals -> measures of every model -> one comparison.


rule embedding_model:
    output:
        hub=directory("results/embeddings/{embedding}/model/hub"),
        digest="results/embeddings/{embedding}/model/checksums.sha256",
    log:
        "results/logs/embedding_model/{embedding}.log",
    benchmark:
        "results/benchmarks/embedding_model/{embedding}.tsv"
    wildcard_constraints:
        embedding=PLAN.evaluation.fetched_pattern(),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(2000),
        runtime=minutes(240),
    params:
        repo=ask(PLAN.evaluation.repo),
        revision=ask(PLAN.evaluation.revision),
        folder=subpath(output.digest, parent=True),
        code=code_of("embedding_model.py"),
    message:
        "Bring the embedding {wildcards.embedding} into place"
    shell:
        r"""
        python "$SCRIPTS/embedding_model.py" \
            --repo {params.repo:q} \
            --revision {params.revision:q} \
            --output {params.folder:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """


# The recordings of a corpus (`corpora/demo`), shared by all runs, or the renders of a model (`renders/demo`).
rule embed:
    input:
        tables=ask(PLAN.evaluation.tables),
        sounds=ask(PLAN.evaluation.sounds, given, ancient),
        model=ask(PLAN.evaluation.digests),
        hub=ask(PLAN.evaluation.hubs, ancient),
    output:
        "results/embeddings/{embedding}/{kind}/{name}.npz",
    log:
        "results/logs/embed/{embedding}/{kind}/{name}.log",
    benchmark:
        "results/benchmarks/embed/{embedding}/{kind}/{name}.tsv"
    wildcard_constraints:
        embedding=PLAN.evaluation.pattern(),
        kind="corpora|renders",
        name="[^/]+",
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=mb(3000, per_mb=20, of="tables"),
        runtime=minutes(START, per_row=EMBEDDED / 60, of="tables"),
        gpu=ask(PLAN.evaluation.gpus),
    params:
        settings=settings(PLAN.evaluation.embed),
        renders=ask(PLAN.evaluation.renders),
        code=code_of("embed.py"),
    message:
        "Embed the {wildcards.kind} {wildcards.name} with {wildcards.embedding}"
    shell:
        r"""
        python "$SCRIPTS/embed.py" \
            --settings {params.settings:q} \
            --model {input.hub:q} \
            --table {input.tables:q} \
            --renders {params.renders:q} \
            --threads {threads} \
            --output {output:q} \
            --log {log:q}
        """


# The renders of a model (`renders/demo`), or the recordings of a corpus that models render anew (`recordings/demo`): once for
# all runs and base models.
rule signals:
    input:
        tables=ask(PLAN.evaluation.signal_tables),
        sounds=ask(PLAN.evaluation.measured, ancient),
    output:
        "results/signals/{kind}/{name}.npz",
    log:
        "results/logs/signals/{kind}/{name}.log",
    benchmark:
        "results/benchmarks/signals/{kind}/{name}.tsv"
    wildcard_constraints:
        kind="renders|recordings",
        name="[^/]+",
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=mb(2000),
        runtime=minutes(15, per_row=0.05, of="tables"),
    params:
        renders=ask(PLAN.evaluation.renders),
        code=code_of("signals.py"),
    message:
        "Measure the {wildcards.kind} {wildcards.name} as signals"
    shell:
        r"""
        python "$SCRIPTS/signals.py" \
            --table {input.tables:q} \
            --renders {params.renders:q} \
            --threads {threads} \
            --output {output:q} \
            --log {log:q}
        """


rule evaluate:
    input:
        table="results/renders/{run}.csv",
        leg=ask(PLAN.evaluation.leg),
        embedded=ask(PLAN.evaluation.embedded),
        recordings=ask(PLAN.evaluation.embedded_recordings),
        thumbnails=ask(PLAN.evaluation.thumbnails),
        signals=ask(PLAN.evaluation.signals),
        recorded_signals=ask(PLAN.evaluation.recorded_signals),
        # Of the base model that a run or a leg is compared with.
        base_clips=ask(PLAN.evaluation.base_clips),
        base_embedded=ask(PLAN.evaluation.base_embedded),
    output:
        measures="results/evaluation/{run}.json",
        clips="results/evaluation/{run}.csv",
    log:
        "results/logs/evaluate/{run}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}.tsv"
    wildcard_constraints:
        # A run, one of its legs (`demo@step-00000500`), or a base model.
        run=r"(?!(summary|votes)\.(csv|json)$)[^/@]+(@(step|epoch)-\d{8})?",
    conda:
        "../envs/data.yaml"
    resources:
        # Four times the thumbnails of a corpus of 4000 clips of 30 s.
        mem_mb=mb(3000),
        runtime=minutes(15, per_row=0.02, of="table"),
    params:
        name=ask(PLAN.evaluation.label),
        settings=settings(PLAN.evaluation.settings),
        code=code_of("evaluate.py"),
    message:
        "Measure what {wildcards.run} rendered"
    shell:
        r"""
        python "$SCRIPTS/evaluate.py" \
            --run {params.name:q} \
            --settings {params.settings:q} \
            --table {input.table:q} \
            --weights-digest {input.leg:q} \
            --embedded {input.embedded:q} \
            --recordings {input.recordings:q} \
            --thumbnails {input.thumbnails:q} \
            --signals {input.signals:q} \
            --recorded-signals {input.recorded_signals:q} \
            --base-clips {input.base_clips:q} \
            --base-embedded {input.base_embedded:q} \
            --output {output.measures:q} \
            --clips {output.clips:q} \
            --log {log:q}
        """


rule compare:
    input:
        expand("results/evaluation/{run}.json", run=PLAN.evaluation.evaluated()),
    output:
        # One picture per run with several legs.
        *(
            report(
                f"results/evaluation/{run}.svg",
                caption="../report/steps.rst",
                category="Evaluation",
                labels={"figure": f"{run} by step"},
            )
            for run in PLAN.evaluation.by_step()
        ),
        table=report(
            "results/evaluation/summary.csv",
            caption="../report/measures.rst",
            category="Evaluation",
            labels={"figure": "all measures"},
        ),
        summary="results/evaluation/summary.json",
    log:
        "results/logs/compare.log",
    benchmark:
        "results/benchmarks/compare.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400, per_mb=20),
        runtime=minutes(10),
    params:
        pictures=expand("results/evaluation/{run}.svg", run=PLAN.evaluation.by_step()),
        families=to_text(PLAN.evaluation.families()),
        code=code_of("compare.py"),
    message:
        "Compare all runs: results/evaluation/summary.csv"
    shell:
        r"""
        python "$SCRIPTS/compare.py" \
            --evaluation {input:q} \
            --table {output.table:q} \
            --summary {output.summary:q} \
            --families {params.families:q} \
            --picture {params.pictures:q} \
            --log {log:q}
        """
