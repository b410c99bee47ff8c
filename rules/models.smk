# The base model and its text encoder.


# Seconds that may save hours: all that can be told of a model without its weights, before they are fetched.
rule rehearse:
    input:
        lambda wildcards: ancient(given(PLAN.base_model_files(wildcards.base_model))),
    output:
        "results/models/{base_model}/rehearsal.json",
    log:
        "results/logs/rehearse/{base_model}.log",
    benchmark:
        "results/benchmarks/rehearse/{base_model}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(1500, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(10, attempt),
    params:
        content=lambda wildcards: PLAN.base_model_content(wildcards.base_model),
        source=lambda wildcards: PLAN.base_model_source_options(wildcards.base_model),
        # A function of the output is no rerun trigger: on a machine without a network nothing could be fetched anew.
        trainings=lambda wildcards, output: PLAN.trainings(wildcards.base_model),
    message:
        "Build base model {wildcards.base_model} without its weights, and make ready the runs that train it"
    shell:
        'python "$SCRIPTS/rehearse.py" {params.source} --trainings {params.trainings:q} --output {output:q} --log {log:q}'


rule base_model:
    input:
        files=lambda wildcards: ancient(given(PLAN.base_model_files(wildcards.base_model))),
        rehearsal=ancient("results/models/{base_model}/rehearsal.json"),
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
        'python "$SCRIPTS/base_model.py" {params.options} --shapes {input.rehearsal:q} --output {params.folder:q}'
        " --digest {output.digest:q} --log {log:q}"
