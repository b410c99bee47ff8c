# Latents -> training checkpoints -> exported model.


def of_run(pattern):
    """Input function: `pattern` with the base model and the corpus of the run filled in."""

    def path(wildcards):
        run = RUNS[wildcards.run]
        return pattern.format(base_model=run["base_model"], corpus=run["corpus"])

    return path


def latents_of_run(suffix):
    """Input function: latents of every published split that the run trains or validates on."""

    def paths(wildcards):
        run = RUNS[wildcards.run]
        corpus = CORPORA[run["corpus"]]
        folder = f"results/latents/{run['base_model']}/{run['corpus']}"
        return [f"{folder}/{split}{suffix}" for role in ("train", "validation") for split in corpus[role]]

    return paths


rule encode:
    input:
        audio=ancient("results/data/{corpus}/audio/{split}"),
        audio_digest="results/data/{corpus}/audio/{split}.sha256",
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
    params:
        model="results/models/{base_model}",
        window=window,
        code=code_hash(SCRIPTS / "encode.py"),
    threads: 1
    resources:
        mem_mb=lambda wildcards: model_entry(wildcards)["memory_mb"],
        gpu=lambda wildcards: model_entry(wildcards)["gpus"],
    conda:
        "../envs/model.yaml"
    message:
        "Encode {wildcards.split} of corpus {wildcards.corpus} with base model {wildcards.base_model}"
    shell:
        "python {SCRIPTS:q}/encode.py --audio {input.audio:q} --audio-digest {input.audio_digest:q}"
        " --split {wildcards.split:q} --model {params.model:q} --model-digest {input.model_digest:q}"
        " {params.window} --threads {threads} --code {params.code}"
        " --output {output.latents:q} --digest {output.digest:q} --log {log:q}"


rule train:
    input:
        datasets=ancient(of_run("results/data/{corpus}/dataset_configs/{base_model}")),
        datasets_digest=of_run("results/data/{corpus}/dataset_configs/{base_model}.sha256"),
        latents=lambda wildcards: ancient(latents_of_run("")(wildcards)),
        latents_digest=latents_of_run(".json"),
        weights=ancient(of_run("results/models/{base_model}/model.safetensors")),
        model_digest=of_run("results/models/{base_model}/checksums.sha256"),
    output:
        checkpoint="results/checkpoints/{run}/last.ckpt",
        metrics="results/checkpoints/{run}/metrics.csv",
        digest="results/checkpoints/{run}/training.json",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    params:
        settings=lambda wildcards: json.dumps(RUNS[wildcards.run]),
        model=of_run("results/models/{base_model}"),
        folder="results/checkpoints/{run}",
        code=code_hash(SCRIPTS / "train.py"),
    threads: lambda wildcards: RUNS[wildcards.run]["threads"] + RUNS[wildcards.run]["workers"]
    resources:
        mem_mb=lambda wildcards: model_entry(wildcards)["memory_mb"],
        gpu=lambda wildcards: model_entry(wildcards)["gpus"],
    conda:
        "../envs/model.yaml"
    message:
        "Train run {wildcards.run}"
    shell:
        "python {SCRIPTS:q}/train.py --run {wildcards.run:q} --settings {params.settings:q}"
        " --dataset-configs {input.datasets:q} --latents-digest {input.latents_digest:q}"
        " --model {params.model:q} --model-digest {input.model_digest:q} --code {params.code}"
        " --output {params.folder:q} --log {log:q}"


rule export:
    input:
        checkpoint=ancient("results/checkpoints/{run}/last.ckpt"),
        training="results/checkpoints/{run}/training.json",
        weights=ancient(of_run("results/models/{base_model}/model.safetensors")),
    output:
        weights="results/checkpoints/{run}/model.safetensors",
        config="results/checkpoints/{run}/model_config.json",
        digest="results/checkpoints/{run}/export.json",
    log:
        "results/logs/export/{run}.log",
    benchmark:
        "results/benchmarks/export/{run}.tsv"
    params:
        model=of_run("results/models/{base_model}"),
        folder="results/checkpoints/{run}",
        code=code_hash(SCRIPTS / "export.py"),
    resources:
        mem_mb=lambda wildcards: model_entry(wildcards)["memory_mb"],
    conda:
        "../envs/model.yaml"
    message:
        "Export the model of run {wildcards.run}"
    shell:
        "python {SCRIPTS:q}/export.py --checkpoint {input.checkpoint:q} --model {params.model:q}"
        " --output {params.folder:q} --digest {output.digest:q} --log {log:q}"
