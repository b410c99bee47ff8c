# Rendered WAVs, of every run and of its untouched base model, and the folder to listen in.


def of_render(pattern):
    """Input function: `pattern` with the base model and the corpus of the render filled in."""

    def path(wildcards):
        entry = RENDERS[wildcards.run]
        return pattern.format(base_model=entry["base_model"], corpus=entry["corpus"])

    return path


def rendered_weights(wildcards):
    """The exported model of a run, or the base model itself."""
    entry = RENDERS[wildcards.run]
    if entry["run"] is None:
        return f"results/models/{entry['base_model']}/model.safetensors"
    return f"results/checkpoints/{entry['run']}/model.safetensors"


def rendered_digest(wildcards):
    entry = RENDERS[wildcards.run]
    if entry["run"] is None:
        return f"results/models/{entry['base_model']}/checksums.sha256"
    return f"results/checkpoints/{entry['run']}/export.json"


rule render:
    input:
        weights=lambda wildcards: ancient(rendered_weights(wildcards)),
        digest=rendered_digest,
        config=ancient(of_render("results/models/{base_model}/model_config.json")),
        splits=lambda wildcards: expand(
            of_render("results/data/{corpus}/splits/{{role}}.csv")(wildcards), role=config["render"]["clips"]
        ),
        # For its order alone: no prompt is rendered that the text encoder would cut.
        checked=ancient(of_render("results/data/{corpus}/dataset_configs/{base_model}.sha256")),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/render/{run}.log",
    benchmark:
        "results/benchmarks/render/{run}.tsv"
    params:
        label=lambda wildcards: RENDERS[wildcards.run]["label"],
        render=json.dumps(config["render"]),
        sampling=lambda wildcards: json.dumps(BASE_MODELS[RENDERS[wildcards.run]["base_model"]]["sampling"]),
        model=of_render("results/models/{base_model}"),
        splits=of_render("results/data/{corpus}/splits"),
        window=window,
        code=code_hash(SCRIPTS / "render.py"),
    threads: 1
    resources:
        mem_mb=lambda wildcards: model_entry(wildcards)["memory_mb"],
        gpu=lambda wildcards: model_entry(wildcards)["gpus"],
    conda:
        "../envs/model.yaml"
    message:
        "Render the prompts with {params.label}"
    shell:
        "python {SCRIPTS:q}/render.py --label {params.label:q} --weights {input.weights:q}"
        " --model {params.model:q} --splits {params.splits:q} --render {params.render:q}"
        " --sampling {params.sampling:q} {params.window} --threads {threads}"
        " --output {output.audio:q} --table {output.table:q} --log {log:q}"


rule collect:
    input:
        tables=expand("results/renders/{run}.csv", run=RENDERS),
        renders=ancient(expand("results/renders/{run}", run=RENDERS)),
    output:
        directory("results/samples"),
    log:
        "results/logs/collect.log",
    benchmark:
        "results/benchmarks/collect.tsv"
    params:
        code=code_hash(SCRIPTS / "collect.py"),
    resources:
        mem_mb=400,
    conda:
        "../envs/data.yaml"
    message:
        "Collect the samples of all runs: results/samples/index.html"
    shell:
        "python {SCRIPTS:q}/collect.py --table {input.tables:q} --render {input.renders:q}"
        " --output {output:q} --log {log:q}"
