# Models and adapters in the forms of other programs: ComfyUI, diffusers, stable-audio-tools.


# Of a run (`results/exports/demo/comfyui-float16.json`) or of one of its legs (`results/exports/demo/step-00000500/…`).
rule convert:
    input:
        weights=ancient("results/checkpoints/{exported}/model.safetensors"),
        export="results/checkpoints/{exported}/export.json",
        possible=ask(PLAN.exports.refusal, unless_refused),
        trained=ask(PLAN.exports.trained, ancient),
        checksums=ask(PLAN.exports.checksums, ancient),
        start=ask(PLAN.exports.start, ancient),
        start_digest=ask(PLAN.exports.start_digest, ancient),
        model=ask(PLAN.models.parts, ancient, run="exported"),
        model_digest=ask(PLAN.models.digest, run="exported"),
        kept=ask(PLAN.exports.kept),
        window=ask(PLAN.exports.window_files),
    output:
        folder=directory("results/exports/{exported}/{form}-{precision}"),
        record="results/exports/{exported}/{form}-{precision}.json",
    log:
        "results/logs/convert/{exported}/{form}-{precision}.log",
    benchmark:
        "results/benchmarks/convert/{exported}/{form}-{precision}.tsv"
    wildcard_constraints:
        exported=PLAN.runs.exported_pattern(),
        form=PLAN.exports.form_pattern(),
        precision=PLAN.exports.precision_pattern(),
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=mb(PLAN.exports.mb),
        runtime=minutes(PLAN.exports.minutes, per_mb=0.01, of="weights"),
        gpu=ask(PLAN.models.run_gpus, run="exported"),
    params:
        run=ask(PLAN.exports.name),
        start=ask(PLAN.exports.start_folder),
        model=subpath(input.model_digest, parent=True),
        settings=settings(PLAN.exports.settings),
        code=code_of("convert.py"),
    message:
        "Write the model of {wildcards.exported} as {wildcards.form} in {wildcards.precision}: {output.folder}"
    shell:
        r"""
        python "$SCRIPTS/convert.py" \
            --run {params.run:q} \
            --weights {input.weights:q} \
            --weights-digest {input.export:q} \
            --trained {input.trained:q} \
            --checksums {input.checksums:q} \
            --start {params.start:q} \
            --start-digest {input.start_digest:q} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --kept {input.kept:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --code {params.code} \
            --output {output.folder:q} \
            --digest {output.record:q} \
            --log {log:q}
        """
