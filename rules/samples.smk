# Rendered WAVs, of every run and of its untouched base model, and the folder to listen in.


rule render:
    input:
        weights=lambda wildcards: ancient(PLAN.weights(wildcards.run)),
        digest=lambda wildcards: PLAN.weights_digest(wildcards.run),
        config=lambda wildcards: ancient(f"{PLAN.model_folder(wildcards.run)}/model_config.json"),
        splits=lambda wildcards: PLAN.rendered_splits(wildcards.run),
        # For its order, and for what it leaves out: no prompt is rendered that the text encoder would cut.
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.run)),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/render/{run}.log",
    benchmark:
        "results/benchmarks/render/{run}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["memory_mb"],
        gpu=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["gpus"],
    params:
        render=json.dumps(PLAN.render),
        sampling=lambda wildcards: json.dumps(
            PLAN.base_models[PLAN.base_model(wildcards.run)]["sampling"]
        ),
        model=lambda wildcards, input: os.path.dirname(input.config),
        splits=lambda wildcards, input: os.path.dirname(input.splits[0]),
        window=lambda wildcards: PLAN.window_options(PLAN.corpus(wildcards.run)),
        code=code_hash(SCRIPTS / "render.py"),
    message:
        "Render the prompts with {wildcards.run}"
    shell:
        'python "$SCRIPTS/render.py" --weights {input.weights:q}'
        " --model {params.model:q} --splits {params.splits:q} --dropped {input.datasets:q}/dropped.csv"
        " --render {params.render:q}"
        " --sampling {params.sampling:q} {params.window} --threads {threads}"
        " --output {output.audio:q} --table {output.table:q} --log {log:q}"


rule collect:
    input:
        tables=expand("results/renders/{run}.csv", run=PLAN.renders),
        renders=ancient(expand("results/renders/{run}", run=PLAN.renders)),
        reports=ancient(PLAN.reports()),
        datasets=ancient(list(dict.fromkeys(map(PLAN.datasets, PLAN.renders)))),
    output:
        directory("results/samples"),
    log:
        "results/logs/collect.log",
    benchmark:
        "results/benchmarks/collect.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=400,
    params:
        runs=[entry["label"] for entry in PLAN.renders.values()],
        dropped=lambda wildcards, input: [f"{folder}/dropped.csv" for folder in input.datasets],
        code=code_hash(SCRIPTS / "collect.py"),
    message:
        "Collect the samples of all runs: results/samples/index.html"
    shell:
        'python "$SCRIPTS/collect.py" --run {params.runs:q} --table {input.tables:q} --render {input.renders:q}'
        " --report {input.reports:q} --dropped {params.dropped:q}"
        " --output {output:q} --log {log:q}"
