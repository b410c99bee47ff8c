# The base model and its text encoder.


# Takes seconds and may save hours: checks everything about a model that needs no weights, before they are fetched.
rule rehearse:
    input:
        ask(PLAN.models.files, given, ancient),
    output:
        "results/models/{base_model}/rehearsal.json",
    log:
        "results/logs/rehearse/{base_model}.log",
    benchmark:
        "results/benchmarks/rehearse/{base_model}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(1500),
        runtime=minutes(10),
    params:
        content=ask(PLAN.models.content),
        settings=settings(PLAN.models.source),
        # Not a rerun trigger: a rerun needs the network, and a training checks its settings again.
        trainings=untracked(PLAN.models.trainings),
    message:
        "Build base model {wildcards.base_model} without its weights, and make ready the runs that train it"
    shell:
        r"""
        python "$SCRIPTS/rehearse.py" \
            --settings {params.settings:q} \
            --trainings {params.trainings:q} \
            --output {output:q} \
            --log {log:q}
        """


rule base_model:
    input:
        files=ask(PLAN.models.files, given, ancient),
        rehearsal=ancient("results/models/{base_model}/rehearsal.json"),
    output:
        config="results/models/{base_model}/model_config.json",
        weights="results/models/{base_model}/model.safetensors",
        hub=directory("results/models/{base_model}/hub"),
        source="results/models/{base_model}/source.json",
        digest="results/models/{base_model}/checksums.sha256",
    log:
        "results/logs/base_model/{base_model}.log",
    benchmark:
        "results/benchmarks/base_model/{base_model}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(PLAN.models.place_mb),
        runtime=minutes(720),
    params:
        content=ask(PLAN.models.content),
        settings=settings(PLAN.models.source),
        folder=subpath(output.config, parent=True),
        code=code_hash(SCRIPTS / "base_model.py"),
    message:
        "Bring base model {wildcards.base_model} and its text encoder into place"
    shell:
        r"""
        python "$SCRIPTS/base_model.py" \
            --settings {params.settings:q} \
            --shapes {input.rehearsal:q} \
            --output {params.folder:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """
