# Handing a model on: its card, and its upload to the Hugging Face Hub.


# The card of a run (`results/checkpoints/demo/`) or of one of its legs (`results/checkpoints/demo/step-00000500/`).
rule model_card:
    input:
        export="results/checkpoints/{exported}/export.json",
        trainings=ask(PLAN.training.exported_summaries),
        config="results/checkpoints/{exported}/model_config.json",
        model_digest=ask(PLAN.models.digest, run="exported"),
        model_source=ask(PLAN.models.source_file, run="exported"),
        start_source=ask(PLAN.models.start_source, run="exported"),
        kept=ask(PLAN.publish.kept),
        window=ask(PLAN.publish.window_files),
        measures=ask(PLAN.publish.measures),
        exports=ask(PLAN.publish.records),
    output:
        card="results/checkpoints/{exported}/README.md",
        attribution="results/checkpoints/{exported}/ATTRIBUTION.csv",
    log:
        "results/logs/model_card/{exported}.log",
    benchmark:
        "results/benchmarks/model_card/{exported}.tsv"
    wildcard_constraints:
        exported=PLAN.runs.exported_pattern(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400, per_mb=20, of="kept"),
        runtime=minutes(10),
    params:
        settings=settings(PLAN.publish.card),
        code=code_of("model_card.py"),
    message:
        "Write the model card of {wildcards.exported}: results/checkpoints/{wildcards.exported}/README.md"
    shell:
        r"""
        python "$SCRIPTS/model_card.py" \
            --export {input.export:q} \
            --training {input.trainings:q} \
            --model-config {input.config:q} \
            --model-digest {input.model_digest:q} \
            --model-source {input.model_source:q} \
            --start-source {input.start_source:q} \
            --settings {params.settings:q} \
            --kept {input.kept:q} \
            --measures {input.measures[0]:q} \
            --base-measures {input.measures[1]:q} \
            --exports {input.exports:q} \
            --card {output.card:q} \
            --attribution {output.attribution:q} \
            --log {log:q}
        """


rule upload:
    input:
        weights=ancient("results/checkpoints/{run}/model.safetensors"),
        digest="results/checkpoints/{run}/export.json",
        config="results/checkpoints/{run}/model_config.json",
        card="results/checkpoints/{run}/README.md",
        attribution="results/checkpoints/{run}/ATTRIBUTION.csv",
        exports=ask(PLAN.publish.folders, ancient, exported="run"),
        records=ask(PLAN.publish.records, exported="run"),
    output:
        "results/published/{run}.json",
    log:
        "results/logs/upload/{run}.log",
    benchmark:
        "results/benchmarks/upload/{run}.tsv"
    wildcard_constraints:
        run=PLAN.publish.pattern(),
    # A local rule, because the network and the token are where Snakemake runs.
    localrule: True
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500),
        runtime=minutes(720),
    params:
        repo=ask(PLAN.publish.repo),
        visibility=ask(PLAN.publish.visibility),
        send=ask(PLAN.publish.send),
        folder=subpath(input.digest, parent=True),
        code=code_of("upload.py"),
    message:
        "Publish the model of {wildcards.run}"
    shell:
        r"""
        python "$SCRIPTS/upload.py" \
            --run {wildcards.run:q} \
            --folder {params.folder:q} \
            --digest {input.digest:q} \
            --repo {params.repo:q} \
            {params.visibility} \
            --send {params.send:q} \
            --exports {input.exports:q} \
            --records {input.records:q} \
            --output {output:q} \
            --log {log:q}
        """
