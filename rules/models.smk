# The base model and its text encoder.


rule base_model:
    input:
        lambda wildcards: ancient(given(PLAN.base_model_files(wildcards.base_model))),
    output:
        config="results/models/{base_model}/model_config.json",
        weights="results/models/{base_model}/model.safetensors",
        hub=directory("results/models/{base_model}/hub"),
        digest="results/models/{base_model}/checksums.sha256",
    log:
        "results/logs/base_model/{base_model}.log",
    benchmark:
        "results/benchmarks/base_model/{base_model}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(
            PLAN.base_model_memory(wildcards.base_model), attempt
        ),
        runtime=lambda wildcards, attempt: PLAN.minutes(720, attempt),
    params:
        content=lambda wildcards: PLAN.base_model_content(wildcards.base_model),
        options=lambda wildcards: PLAN.base_model_options(wildcards.base_model),
        folder=lambda wildcards, output: os.path.dirname(output.config),
        code=code_hash(SCRIPTS / "base_model.py"),
    message:
        "Bring base model {wildcards.base_model} and its text encoder into place"
    shell:
        'python "$SCRIPTS/base_model.py" {params.options} --output {params.folder:q}'
        " --digest {output.digest:q} --log {log:q}"
