# A few sounds of each leg, as soon as it is trained -> a page, Weights & Biases, TensorBoard.

# These jobs come before the next leg of a training, which may have to wait for the same GPU or processors. What makes sounds
# comes before what shows them, which would take a processor that a render needs.
SOON, FIRST = 50, 60


rule listen_prompts:
    input:
        clips="results/data/{corpus}/prompts/{base_model}.csv",
    output:
        "results/data/{corpus}/listen/{base_model}.csv",
    log:
        "results/logs/listen_prompts/{corpus}/{base_model}.log",
    benchmark:
        "results/benchmarks/listen_prompts/{corpus}/{base_model}.tsv"
    priority: FIRST
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500, per_mb=6),
        runtime=minutes(10),
    params:
        settings=to_text(PLAN.listening.settings()),
        code=code_of("listen_prompts.py"),
    message:
        "Choose prompts of corpus {wildcards.corpus} to listen to with base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/listen_prompts.py" \
            --clips {input.clips:q} \
            --settings {params.settings:q} \
            --output {output:q} \
            --log {log:q}
        """


# The whole model of a leg is as large as the base model. It is removed once it has rendered.
use rule export as export_listened with:
    output:
        weights=temp("results/checkpoints/.listen/{exported}/model.safetensors"),
        config=temp("results/checkpoints/.listen/{exported}/model_config.json"),
        digest="results/checkpoints/.listen/{exported}/export.json",
    log:
        "results/logs/export_listened/{exported}.log",
    benchmark:
        "results/benchmarks/export_listened/{exported}.tsv"
    wildcard_constraints:
        exported=PLAN.runs.legs_pattern(),
    priority: FIRST
    # It uses neither a GPU nor so many processors, but holds them for the render: if the next leg got them in between, this leg
    # would be heard one leg late.
    threads: ask(PLAN.rendering.threads, run="exported") if ON_ONE_MACHINE else 1
    resources:
        mem_mb=mb(PLAN.models.run_mb, run="exported"),
        runtime=minutes(START, per_mb=0.005, of="weights"),
        gpu=ask(PLAN.models.run_gpus, run="exported") if ON_ONE_MACHINE else 0,
    message:
        "Export the model of {wildcards.exported} to listen to it"


use rule render as render_listened with:
    input:
        weights=ask(PLAN.listening.weights, ancient),
        digest=ask(PLAN.listening.weights_digest),
        model=ask(PLAN.models.parts, ancient),
        model_digest=ask(PLAN.models.digest, ancient),
        clips=ask(PLAN.listening.clips),
        sources=ask(PLAN.rendering.source_folder, ancient),
        watermark=PLAN.rendering.watermark(),
        watermark_digest=PLAN.rendering.watermark_digest(),
    output:
        audio=directory("results/renders/.listen/{run}"),
        table="results/renders/.listen/{run}.csv",
    log:
        "results/logs/render_listened/{run}.log",
    benchmark:
        "results/benchmarks/render_listened/{run}.tsv"
    wildcard_constraints:
        run=PLAN.listening.pattern(),
    priority: FIRST
    resources:
        mem_mb=mb(PLAN.models.run_mb),
        runtime=minutes(PLAN.listening.minutes),
        gpu=ask(PLAN.models.run_gpus),
    message:
        "Render the prompts to listen to with {wildcards.run}"


# What is heard of a leg, or of a base model. The page is written anew with all that is there so far.
rule listen:
    input:
        table="results/renders/.listen/{run}.csv",
        renders=ancient("results/renders/.listen/{run}"),
        beside=ask(PLAN.rendering.beside, ancient),
        training=ask(PLAN.listening.training),
        base=ask(PLAN.listening.base),
        before=ask(PLAN.listening.before, ancient),
    output:
        sounds=directory("results/listen/{run}"),
        summary="results/listen/{run}.json",
    log:
        "results/logs/listen/{run}.log",
    benchmark:
        "results/benchmarks/listen/{run}.tsv"
    wildcard_constraints:
        run=PLAN.listening.pattern(),
    priority: SOON
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500),
        runtime=minutes(10, per_row=0.02, of="table"),
    params:
        # Not a rerun trigger: a longer training changes nothing about this leg.
        shown=untracked(PLAN.listening.shown),
        code=code_of("listen.py"),
    message:
        "Listen to {wildcards.run}: results/listen/index.html"
    shell:
        r"""
        python "$SCRIPTS/listen.py" \
            --name {wildcards.run:q} \
            --table {input.table:q} \
            --renders {input.renders:q} \
            --training {input.training:q} \
            --base {input.base:q} \
            --shown {params.shown:q} \
            --output {output.sounds:q} \
            --summary {output.summary:q} \
            --log {log:q}
        """


# The page of all legs. Until the last one has landed, rule listen writes it.
rule listen_page:
    input:
        summaries=PLAN.listening.summaries(),
        # An input only so that sounds are logged, too.
        logged=ancient(PLAN.listening.logged()),
    output:
        "results/listen/index.html",
    log:
        "results/logs/listen_page.log",
    benchmark:
        "results/benchmarks/listen_page.tsv"
    priority: SOON
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500, per_mb=20),
        runtime=minutes(10),
    params:
        shown=PLAN.listening.shown(),
        parts=[
            content_key(SCRIPTS / "sao" / "pages" / name)
            for name in ("listening.html.j2", "player.html.j2", "page.css", "player.js")
        ],
        code=code_of("listen_page.py"),
    message:
        "Write the page of all legs: results/listen/index.html"
    shell:
        r"""
        python "$SCRIPTS/listen_page.py" \
            --shown {params.shown:q} \
            --output {output:q} \
            --log {log:q}
        """


rule log_audio:
    input:
        leg="results/listen/{run}.json",
        base=ask(PLAN.listening.logged_base),
        sounds=ask(PLAN.listening.folders, ancient),
        before=ask(PLAN.listening.logged_before, ancient),
    output:
        "results/listen/logged/{run}.json",
    log:
        "results/logs/log_audio/{run}.log",
    benchmark:
        "results/benchmarks/log_audio/{run}.tsv"
    wildcard_constraints:
        run=PLAN.listening.logged_pattern(),
    priority: SOON
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(1000),
        runtime=minutes(30),
    params:
        settings=settings(PLAN.listening.logging),
        folder=ask(PLAN.listening.log_folder),
        code=code_of("log_audio.py"),
    message:
        "Log the sounds of {wildcards.run}"
    shell:
        r"""
        python "$SCRIPTS/log_audio.py" \
            --leg {input.leg:q} \
            --base {input.base:q} \
            --settings {params.settings:q} \
            --folder {params.folder:q} \
            --output {output:q} \
            --log {log:q}
        """
