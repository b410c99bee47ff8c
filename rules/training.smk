# Latents -> training checkpoints -> exported model.


rule encode:
    input:
        audio=lambda wildcards: ancient(PLAN.audio(wildcards.corpus, wildcards.split)),
        facts="results/data/{corpus}/audio/{split}.csv",
        weights=ancient("results/models/{base_model}/model.safetensors"),
        model_digest="results/models/{base_model}/checksums.sha256",
        # For its order alone: no audio is encoded before corpus and captions passed every check, and a changed
        # caption encodes nothing anew.
        checked=ancient("results/data/{corpus}/dataset_configs/{base_model}.sha256"),
    output:
        latents=directory("results/latents/{base_model}/{corpus}/{split}"),
        digest="results/latents/{base_model}/{corpus}/{split}.json",
    log:
        "results/logs/encode/{base_model}/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/encode/{base_model}/{corpus}/{split}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: PLAN.base_models[wildcards.base_model]["memory_mb"],
        gpu=lambda wildcards: PLAN.base_models[wildcards.base_model]["gpus"],
    params:
        model=lambda wildcards, input: os.path.dirname(input.weights),
        window=lambda wildcards: PLAN.window_options(wildcards.corpus),
        code=code_hash(SCRIPTS / "encode.py"),
    message:
        "Encode {wildcards.split} of corpus {wildcards.corpus} with base model {wildcards.base_model}"
    shell:
        'python "$SCRIPTS/encode.py" --audio {input.audio:q} --facts {input.facts:q}'
        " --split {wildcards.split:q} --model {params.model:q} --model-digest {input.model_digest:q}"
        " {params.window} --threads {threads} --code {params.code}"
        " --output {output.latents:q} --digest {output.digest:q} --log {log:q}"


rule train:
    input:
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.run)),
        datasets_digest=lambda wildcards: f"{PLAN.datasets(wildcards.run)}.sha256",
        latents=lambda wildcards: ancient(PLAN.latents(wildcards.run)),
        latents_digest=lambda wildcards: PLAN.latents(wildcards.run, ".json"),
        weights=lambda wildcards: ancient(f"{PLAN.model_folder(wildcards.run)}/model.safetensors"),
        model_digest=lambda wildcards: f"{PLAN.model_folder(wildcards.run)}/checksums.sha256",
    output:
        checkpoint="results/checkpoints/{run}/last.ckpt",
        metrics="results/checkpoints/{run}/metrics.csv",
        digest="results/checkpoints/{run}/training.json",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    conda:
        "../envs/model.yaml"
    threads: lambda wildcards: PLAN.runs[wildcards.run]["threads"] + PLAN.runs[wildcards.run]["workers"]
    resources:
        mem_mb=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["memory_mb"],
        gpu=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["gpus"],
    params:
        settings=lambda wildcards: json.dumps(PLAN.runs[wildcards.run]),
        model=lambda wildcards, input: os.path.dirname(input.weights),
        folder=lambda wildcards, output: os.path.dirname(output.digest),
        code=code_hash(SCRIPTS / "train.py"),
    message:
        "Train run {wildcards.run}"
    shell:
        'python "$SCRIPTS/train.py" --run {wildcards.run:q} --settings {params.settings:q}'
        " --dataset-configs {input.datasets:q} --latents-digest {input.latents_digest:q}"
        " --model {params.model:q} --model-digest {input.model_digest:q} --code {params.code}"
        " --output {params.folder:q} --log {log:q}"


rule export:
    input:
        checkpoint=ancient("results/checkpoints/{run}/last.ckpt"),
        training="results/checkpoints/{run}/training.json",
        weights=lambda wildcards: ancient(f"{PLAN.model_folder(wildcards.run)}/model.safetensors"),
        clips=lambda wildcards: f"results/data/{PLAN.corpus(wildcards.run)}/splits/train.csv",
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.run)),
    output:
        weights="results/checkpoints/{run}/model.safetensors",
        config="results/checkpoints/{run}/model_config.json",
        card="results/checkpoints/{run}/README.md",
        attribution="results/checkpoints/{run}/ATTRIBUTION.csv",
        digest="results/checkpoints/{run}/export.json",
    log:
        "results/logs/export/{run}.log",
    benchmark:
        "results/benchmarks/export/{run}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["memory_mb"],
    params:
        source=lambda wildcards: PLAN.base_model_source(wildcards.run),
        model=lambda wildcards, input: os.path.dirname(input.weights),
        folder=lambda wildcards, output: os.path.dirname(output.digest),
        code=code_hash(SCRIPTS / "export.py"),
    message:
        "Export the model of run {wildcards.run}"
    shell:
        'python "$SCRIPTS/export.py" --checkpoint {input.checkpoint:q} --model {params.model:q}'
        " --source {params.source:q} --training {input.training:q} --clips {input.clips:q}"
        " --dropped {input.datasets:q}/dropped.csv --output {params.folder:q} --digest {output.digest:q} --log {log:q}"
