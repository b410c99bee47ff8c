# The model as a thing to hand on: its card, and its upload to the Hugging Face Hub.


# Of a run (`results/checkpoints/demo/`) or of one of its legs (`results/checkpoints/demo/step-00000500/`).
rule model_card:
    input:
        export="results/checkpoints/{exported}/export.json",
        trainings=lambda wildcards: PLAN.to_export(wildcards.exported, "training.json"),
        config="results/checkpoints/{exported}/model_config.json",
        model_digest=lambda wildcards: f"{PLAN.model_folder(wildcards.exported)}/checksums.sha256",
        clips=lambda wildcards: f"results/data/{PLAN.corpus(wildcards.exported)}/splits/train.csv",
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.exported)),
        measures=lambda wildcards: PLAN.card_measures(wildcards.exported),
    output:
        card="results/checkpoints/{exported}/README.md",
        attribution="results/checkpoints/{exported}/ATTRIBUTION.csv",
    log:
        "results/logs/model_card/{exported}.log",
    benchmark:
        "results/benchmarks/model_card/{exported}.tsv"
    wildcard_constraints:
        exported=rf"[^/]+|{PLAN.legs_pattern()}",
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(400 + 20 * megabytes(input.clips), attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(10, attempt),
    params:
        source=lambda wildcards: PLAN.base_model_source(wildcards.exported),
        sampling=lambda wildcards: json.dumps(
            PLAN.base_models[PLAN.base_model(wildcards.exported)]["sampling"]
        ),
        window=lambda wildcards: PLAN.window_options(PLAN.corpus(wildcards.exported)),
        code=code_hash(SCRIPTS / "model_card.py"),
    message:
        "Write the model card of {wildcards.exported}: results/checkpoints/{wildcards.exported}/README.md"
    shell:
        'python "$SCRIPTS/model_card.py" --export {input.export:q} --training {input.trainings:q}'
        " --model-config {input.config:q} --source {params.source:q} --model-digest {input.model_digest:q}"
        " --sampling {params.sampling:q} {params.window} --clips {input.clips:q}"
        " --dropped {input.datasets:q}/dropped.csv --measures {input.measures[0]:q}"
        " --base-measures {input.measures[1]:q} --card {output.card:q} --attribution {output.attribution:q} --log {log:q}"


rule upload:
    input:
        weights=ancient("results/checkpoints/{run}/model.safetensors"),
        digest="results/checkpoints/{run}/export.json",
        config="results/checkpoints/{run}/model_config.json",
        card="results/checkpoints/{run}/README.md",
        attribution="results/checkpoints/{run}/ATTRIBUTION.csv",
    output:
        "results/published/{run}.json",
    log:
        "results/logs/upload/{run}.log",
    benchmark:
        "results/benchmarks/upload/{run}.tsv"
    wildcard_constraints:
        run=PLAN.upload_pattern(),
    # Where the network and the token are.
    localrule: True
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(500, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(720, attempt),
    params:
        options=lambda wildcards: PLAN.upload_options(wildcards.run),
        folder=lambda wildcards, input: os.path.dirname(input.digest),
        code=code_hash(SCRIPTS / "upload.py"),
    message:
        "Publish the model of {wildcards.run}"
    shell:
        'python "$SCRIPTS/upload.py" --run {wildcards.run:q} --folder {params.folder:q}'
        " --digest {input.digest:q} {params.options} --output {output:q} --log {log:q}"
