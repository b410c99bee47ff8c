# Embeddings of recordings and renders -> measures of every model -> one comparison.


rule embedding_model:
    output:
        hub=directory("results/embeddings/{embedding}/model/hub"),
        digest="results/embeddings/{embedding}/model/checksums.sha256",
    log:
        "results/logs/embedding_model/{embedding}.log",
    benchmark:
        "results/benchmarks/embedding_model/{embedding}.tsv"
    wildcard_constraints:
        embedding=PLAN.clap_pattern(),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(2000, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(240, attempt),
    params:
        source=lambda wildcards: PLAN.embedding_source(wildcards.embedding),
        folder=lambda wildcards, output: os.path.dirname(output.digest),
        code=code_hash(SCRIPTS / "embedding_model.py"),
    message:
        "Bring the embedding {wildcards.embedding} into place"
    shell:
        'python "$SCRIPTS/embedding_model.py" {params.source} --output {params.folder:q}'
        " --digest {output.digest:q} --log {log:q}"


# The recordings of a corpus (`corpora/demo`), shared by all runs, or the renders of a model (`renders/demo`).
rule embed:
    input:
        tables=lambda wildcards: PLAN.embedded_tables(wildcards.kind, wildcards.name),
        sounds=lambda wildcards: ancient(
            given(PLAN.embedded_sounds(wildcards.kind, wildcards.name))
        ),
        model=lambda wildcards: PLAN.embedding_models(wildcards.embedding),
        hub=lambda wildcards: ancient(PLAN.embedding_hubs(wildcards.embedding)),
    output:
        "results/embeddings/{embedding}/{kind}/{name}.npz",
    log:
        "results/logs/embed/{embedding}/{kind}/{name}.log",
    benchmark:
        "results/benchmarks/embed/{embedding}/{kind}/{name}.tsv"
    wildcard_constraints:
        embedding=PLAN.embeddings_pattern(),
        kind="corpora|renders",
        name="[^/]+",
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(3000 + 20 * megabytes(input.tables), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            START + EMBEDDED / 60 * sum(map(rows, input.tables)), attempt
        ),
        gpu=lambda wildcards: PLAN.embedding_gpus(wildcards.embedding),
    params:
        options=lambda wildcards: PLAN.embedding_options(wildcards.embedding),
        renders=lambda wildcards, input: (
            f"--renders {shlex.quote(input.sounds[0])}" if wildcards.kind == "renders" else ""
        ),
        code=code_hash(SCRIPTS / "embed.py"),
    message:
        "Embed the {wildcards.kind} {wildcards.name} with {wildcards.embedding}"
    shell:
        'python "$SCRIPTS/embed.py" {params.options} --table {input.tables:q} {params.renders}'
        " --threads {threads} --output {output:q} --log {log:q}"


rule evaluate:
    input:
        table="results/renders/{run}.csv",
        renders=ancient("results/renders/{run}"),
        leg=lambda wildcards: PLAN.evaluation_leg(wildcards.run),
        embedded=lambda wildcards: PLAN.embedded("renders", wildcards.run),
        recordings=lambda wildcards: PLAN.embedded("corpora", PLAN.corpus(wildcards.run)),
        # What the table names as references.
        sounds=lambda wildcards: ancient(PLAN.recordings(PLAN.corpus(wildcards.run))),
        thumbnails=lambda wildcards: PLAN.thumbnails(PLAN.corpus(wildcards.run)),
    output:
        measures="results/evaluation/{run}.json",
        clips="results/evaluation/{run}.csv",
    log:
        "results/logs/evaluate/{run}.log",
    benchmark:
        "results/benchmarks/evaluate/{run}.tsv"
    wildcard_constraints:
        # A run, one of its legs (`demo@step-00000500`), or a base model.
        run=r"(?!summary\.(csv|json)$)[^/@]+(@(step|epoch)-\d{8})?",
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        # Twice the thumbnails of a corpus of 4000 clips of 30 s, and as much again.
        mem_mb=lambda wildcards, attempt: grown(3000, attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            15 + 0.05 * rows(input.table), attempt
        ),
    params:
        name=lambda wildcards: PLAN.evaluated_as(wildcards.run),
        source=lambda wildcards: PLAN.evaluation_source(wildcards.run),
        leg=lambda wildcards, input: " ".join(
            f"--weights-digest {shlex.quote(path)}" for path in input.leg
        ),
        options=PLAN.evaluation_options(),
        code=code_hash(SCRIPTS / "evaluate.py"),
    message:
        "Measure what {wildcards.run} rendered"
    shell:
        'python "$SCRIPTS/evaluate.py" --run {params.name:q} --source {params.source:q}'
        " --table {input.table:q} --renders {input.renders:q} {params.leg} {params.options}"
        " --embedded {input.embedded:q} --recordings {input.recordings:q} --thumbnails {input.thumbnails:q}"
        " --threads {threads} --output {output.measures:q} --clips {output.clips:q} --log {log:q}"


rule compare:
    input:
        expand("results/evaluation/{run}.json", run=PLAN.evaluated()),
    output:
        # A picture for each run with several legs.
        *(
            report(
                f"results/evaluation/{run}.svg",
                caption="../report/steps.rst",
                category="Evaluation",
                labels={"figure": f"{run} by step"},
            )
            for run in PLAN.evaluated_runs()
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
        mem_mb=lambda wildcards, input, attempt: grown(400 + 20 * input.size_mb, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(10, attempt),
    params:
        pictures=lambda wildcards, output: [path for path in output if path.endswith(".svg")],
        code=code_hash(SCRIPTS / "compare.py"),
    message:
        "Compare all runs: results/evaluation/summary.csv"
    shell:
        'python "$SCRIPTS/compare.py" --evaluation {input:q} --table {output.table:q} --summary {output.summary:q}'
        " --picture {params.pictures:q} --log {log:q}"
