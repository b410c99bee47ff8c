# The base model and its text encoder.


def base_model_options(wildcards):
    """Where a base model comes from, as command-line options."""
    entry = BASE_MODELS[wildcards.base_model]
    if "path" in entry:
        return options({"path": entry["path"]})
    encoder = entry["text_encoder"]
    return options(
        {
            "repo": entry["repo"],
            "revision": entry["revision"],
            "text_encoder_repo": encoder["repo"],
            "text_encoder_revision": encoder["revision"],
        }
    )


def model_entry(wildcards):
    """The config entry of the base model that a job runs: named by it, or by its run."""
    name = RENDERS[wildcards.run]["base_model"] if "run" in wildcards.keys() else wildcards.base_model
    return BASE_MODELS[name]


def local_model(wildcards):
    """The files of a local base model: a change in them is a change of the model."""
    entry = BASE_MODELS[wildcards.base_model]
    if "path" not in entry:
        return []
    names = ["model_config.json", "model.safetensors", "text_encoder/model.safetensors"]
    return [f"{entry['path']}/{name}" for name in [*names, "text_encoder/tokenizer.json"]]


rule base_model:
    input:
        local_model,
    output:
        config="results/models/{base_model}/model_config.json",
        weights="results/models/{base_model}/model.safetensors",
        hub=directory("results/models/{base_model}/hub"),
        digest="results/models/{base_model}/checksums.sha256",
    log:
        "results/logs/base_model/{base_model}.log",
    benchmark:
        "results/benchmarks/base_model/{base_model}.tsv"
    params:
        options=base_model_options,
        folder="results/models/{base_model}",
        code=code_hash(SCRIPTS / "base_model.py"),
    resources:
        mem_mb=500,
    conda:
        "../envs/data.yaml"
    message:
        "Bring base model {wildcards.base_model} and its text encoder into place"
    shell:
        "python {SCRIPTS:q}/base_model.py {params.options} --output {params.folder:q}"
        " --digest {output.digest:q} --log {log:q}"
