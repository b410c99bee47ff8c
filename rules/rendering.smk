# Audio rendered by every run and by its untouched base model, and pictures of it.


# Before anything slow: a prompt that the model cannot take is known in seconds, and not after hours of training.
rule prompts:
    input:
        kept="results/data/{corpus}/dataset_configs/{base_model}.csv",
        window=ask(PLAN.data.window_files),
        prompts=given(PLAN.rendering.prompts()),
        # The sounds that the prompts name.
        sources=given(PLAN.rendering.sources()),
        model_config=ancient("results/models/{base_model}/model_config.json"),
        hub=ancient("results/models/{base_model}/hub"),
        model_digest="results/models/{base_model}/checksums.sha256",
    output:
        table="results/data/{corpus}/prompts/{base_model}.csv",
        sources=directory("results/data/{corpus}/prompts/{base_model}"),
    log:
        "results/logs/prompts/{corpus}/{base_model}.log",
    benchmark:
        "results/benchmarks/prompts/{corpus}/{base_model}.tsv"
    # No training waits for it by an input: where it fails, nothing of a training is made anew.
    priority: 100
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500, per_mb=6, of="kept"),
        runtime=minutes(10, per_mb=1, of="kept"),
    params:
        settings=settings(PLAN.rendering.prompt_settings),
        # Not every path can be declared as an input.
        sources=PLAN.rendering.source_keys(),
        code=code_of("prompts.py"),
    message:
        "Check the prompts of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/prompts.py" \
            --kept {input.kept:q} \
            --prompts {input.prompts:q} \
            --model-config {input.model_config:q} \
            --hub {input.hub:q} \
            --settings {params.settings:q} \
            --output {output.table:q} \
            --sources {output.sources:q} \
            --log {log:q}
        """


rule render:
    input:
        weights=ask(PLAN.rendering.weights, ancient),
        digest=ask(PLAN.rendering.weights_digest),
        model=ask(PLAN.models.parts, ancient),
        model_digest=ask(PLAN.models.digest, ancient),
        clips=ask(PLAN.rendering.clips),
        window=ask(PLAN.rendering.window_files),
        sources=ask(PLAN.rendering.source_folder, ancient),
        # Nothing, unless renders are marked.
        watermark=PLAN.rendering.watermark(),
        watermark_digest=PLAN.rendering.watermark_digest(),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/render/{run}.log",
    benchmark:
        "results/benchmarks/render/{run}.tsv"
    wildcard_constraints:
        run=PLAN.rendering.pattern(shards=False),
    conda:
        "../envs/model.yaml"
    threads: ask(PLAN.rendering.threads)
    resources:
        mem_mb=mb(PLAN.models.run_mb),
        runtime=minutes(PLAN.rendering.minutes),
        gpu=ask(PLAN.models.run_gpus),
    params:
        settings=settings(PLAN.rendering.settings),
        model=ask(PLAN.models.folder),
        shard=named("shard"),
        # Not a rerun trigger, because the batch size changes no clip.
        batch_size=untracked(PLAN.rendering.batch_size),
        code=code_of("render.py"),
    message:
        "Render the prompts with {wildcards.run}"
    shell:
        r"""
        python "$SCRIPTS/render.py" \
            --run {wildcards.run:q} \
            --weights {input.weights:q} \
            --weights-digest {input.digest:q} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --clips {input.clips:q} \
            --settings {params.settings:q} \
            --shard {params.shard} \
            --batch-size {params.batch_size} \
            --watermark {input.watermark:q} \
            --watermark-digest {input.watermark_digest:q} \
            --threads {threads} \
            --code {params.code} \
            --output {output.audio:q} \
            --table {output.table:q} \
            --log {log:q}
        """


# Renders a part of the clips, if `render.shards` is above 1.
use rule render as render_shard with:
    output:
        audio=directory("results/renders/.shards/{run}/{shard}"),
        table="results/renders/.shards/{run}/{shard}.csv",
    log:
        "results/logs/render/{run}/{shard}.log",
    benchmark:
        "results/benchmarks/render/{run}/{shard}.tsv"
    wildcard_constraints:
        run=PLAN.rendering.pattern(shards=True),
        shard=r"\d{4}-of-\d{4}",


rule gather:
    input:
        tables=ask(PLAN.rendering.shard_tables),
        renders=ask(PLAN.rendering.shards, ancient),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/gather/{run}.log",
    benchmark:
        "results/benchmarks/gather/{run}.tsv"
    wildcard_constraints:
        run=PLAN.rendering.pattern(shards=True),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400, per_mb=20, of="tables"),
        runtime=minutes(10, per_row=0.005, of="tables"),
    params:
        code=code_of("gather.py"),
    message:
        "Gather what the shards of {wildcards.run} rendered"
    shell:
        r"""
        python "$SCRIPTS/gather.py" \
            --table {input.tables:q} \
            --render {input.renders:q} \
            --output {output.audio:q} \
            --output-table {output.table:q} \
            --log {log:q}
        """


rule spectrograms:
    input:
        table="results/renders/{run}.csv",
        renders=ancient("results/renders/{run}"),
        # The recordings and sources that the table names.
        beside=ask(PLAN.rendering.beside, ancient),
    output:
        directory("results/spectrograms/{run}"),
    log:
        "results/logs/spectrograms/{run}.log",
    benchmark:
        "results/benchmarks/spectrograms/{run}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=mb(500),
        # With the recordings there are two pictures per clip.
        runtime=minutes(10, per_row=0.01, of="table"),
    params:
        beside=ask(PLAN.rendering.with_beside),
        code=code_of("spectrograms.py"),
    message:
        "Draw the spectrograms of {wildcards.run}"
    shell:
        r"""
        python "$SCRIPTS/spectrograms.py" \
            --table {input.table:q} \
            --renders {input.renders:q} \
            {params.beside} \
            --threads {threads} \
            --output {output:q} \
            --log {log:q}
        """
