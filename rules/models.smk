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
        exports=untracked(PLAN.exports.forms_by_run),
    message:
        "Build base model {wildcards.base_model} without its weights, and make ready the runs that train it"
    shell:
        r"""
        python "$SCRIPTS/rehearse.py" \
            --settings {params.settings:q} \
            --trainings {params.trainings:q} \
            --exports {params.exports:q} \
            --output {output:q} \
            --log {log:q}
        """


rule base_model:
    input:
        files=ask(PLAN.models.files, given, ancient),
        exported=ask(PLAN.models.exported),
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
        code=code_of("base_model.py"),
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


# Lays the weights of an earlier fine-tuning over the base model's, for a run with `init_from`.
rule init:
    input:
        trained=ask(PLAN.models.init_trained, ancient),
        export=ask(PLAN.models.init_export),
        before=ask(PLAN.models.init_before, ancient),
        files=ask(PLAN.models.init_files, given, ancient),
        base=ask(PLAN.models.weights, ancient),
        config=ask(PLAN.models.parts, ancient),
        digest=ask(PLAN.models.digest),
    output:
        weights="results/initial/{run}/model.safetensors",
        config="results/initial/{run}/model_config.json",
        source="results/initial/{run}/source.json",
        digest="results/initial/{run}/checksums.sha256",
    log:
        "results/logs/init/{run}.log",
    benchmark:
        "results/benchmarks/init/{run}.tsv"
    wildcard_constraints:
        run=PLAN.models.initialised(),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(PLAN.models.run_mb),
        runtime=minutes(START, per_mb=0.005, of="base"),
    params:
        content=ask(PLAN.models.init_content),
        weights=ask(PLAN.models.init_weights),
        settings=settings(PLAN.models.init),
        model=subpath(input.base, parent=True),
        folder=subpath(output.config, parent=True),
        code=code_of("init.py"),
    message:
        "Bring the weights into place that run {wildcards.run} starts from"
    shell:
        r"""
        python "$SCRIPTS/init.py" \
            --weights {params.weights:q} \
            --export {input.export:q} \
            --before {input.before:q} \
            --settings {params.settings:q} \
            --model {params.model:q} \
            --model-digest {input.digest:q} \
            --output {params.folder:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """
