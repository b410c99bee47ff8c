# Rendered audio, of every run and of its untouched base model, and the folder to listen in.


rule render:
    input:
        weights=lambda wildcards: ancient(PLAN.weights(wildcards.run)),
        digest=lambda wildcards: PLAN.weights_digest(wildcards.run),
        model=lambda wildcards: ancient(PLAN.model_files(wildcards.run)),
        model_digest=lambda wildcards: ancient(
            f"{PLAN.model_folder(wildcards.run)}/checksums.sha256"
        ),
        splits=lambda wildcards: PLAN.rendered_splits(wildcards.run),
        prompts=given(PLAN.prompts()),
        # For its order, and for what it leaves out: no prompt is rendered that the text encoder would cut.
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.run)),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/render/{run}.log",
    benchmark:
        "results/benchmarks/render/{run}.tsv"
    wildcard_constraints:
        run=PLAN.rendered_pattern(shards=False),
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: grown(PLAN.memory(wildcards.run), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            PLAN.render_minutes(
                dict(zip(PLAN.render["clips"], map(rows, input.splits))),
                sum(map(rows, input.prompts)),
            ),
            attempt,
        ),
        gpu=lambda wildcards: PLAN.base_models[PLAN.base_model(wildcards.run)]["gpus"],
    params:
        render=PLAN.render_settings(),
        sampling=lambda wildcards: json.dumps(
            PLAN.base_models[PLAN.base_model(wildcards.run)]["sampling"]
        ),
        model=lambda wildcards, input: os.path.dirname(input.model[0]),
        splits=lambda wildcards: f"results/data/{PLAN.corpus(wildcards.run)}/splits",
        prompts=lambda wildcards, input: " ".join(
            f"--prompts {shlex.quote(path)}" for path in input.prompts
        ),
        window=lambda wildcards: PLAN.window_options(PLAN.corpus(wildcards.run)),
        shard=lambda wildcards: f"--shard {wildcards.shard}" if "shard" in wildcards.keys() else "",
        # A function of the output is no rerun trigger: another batch changes no clip.
        batch=lambda wildcards, output: PLAN.batch_options(),
        code=code_hash(SCRIPTS / "render.py"),
    message:
        "Render the prompts with {wildcards.run}"
    shell:
        'python "$SCRIPTS/render.py" --run {wildcards.run:q} --weights {input.weights:q}'
        " --weights-digest {input.digest:q} --model {params.model:q} --model-digest {input.model_digest:q}"
        " --splits {params.splits:q} {params.prompts} --dropped {input.datasets:q}/dropped.csv"
        " --render {params.render:q} --sampling {params.sampling:q} {params.window} {params.shard} {params.batch}"
        " --threads {threads} --output {output.audio:q} --table {output.table:q} --log {log:q}"


# The same for a part of the clips, where `render.shards` says so.
use rule render as render_shard with:
    output:
        audio=directory("results/renders/.shards/{run}/{shard}"),
        table="results/renders/.shards/{run}/{shard}.csv",
    log:
        "results/logs/render/{run}/{shard}.log",
    benchmark:
        "results/benchmarks/render/{run}/{shard}.tsv"
    wildcard_constraints:
        run=PLAN.rendered_pattern(shards=True),
        shard=r"\d{4}-of-\d{4}",


rule gather:
    input:
        tables=lambda wildcards: [f"{folder}.csv" for folder in PLAN.render_shards(wildcards.run)],
        renders=lambda wildcards: ancient(PLAN.render_shards(wildcards.run)),
    output:
        audio=directory("results/renders/{run}"),
        table="results/renders/{run}.csv",
    log:
        "results/logs/gather/{run}.log",
    benchmark:
        "results/benchmarks/gather/{run}.tsv"
    wildcard_constraints:
        run=PLAN.rendered_pattern(shards=True),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(400 + 20 * megabytes(input.tables), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + 0.005 * sum(map(rows, input.tables)), attempt
        ),
    params:
        code=code_hash(SCRIPTS / "gather.py"),
    message:
        "Gather what the shards of {wildcards.run} rendered"
    shell:
        'python "$SCRIPTS/gather.py" --table {input.tables:q} --render {input.renders:q}'
        " --output {output.audio:q} --output-table {output.table:q} --log {log:q}"


rule spectrograms:
    input:
        table="results/renders/{run}.csv",
        renders=ancient("results/renders/{run}"),
        # What the table names as references.
        recordings=lambda wildcards: ancient(PLAN.recordings(PLAN.corpus(wildcards.run))),
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
        mem_mb=lambda wildcards, attempt: grown(500, attempt),
        # With the recordings, two pictures a clip.
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + 0.01 * rows(input.table), attempt
        ),
    params:
        # A base model is rendered once: what belongs to no run is drawn with it.
        references=lambda wildcards: "--references" if PLAN.is_base(wildcards.run) else "",
        code=code_hash(SCRIPTS / "spectrograms.py"),
    message:
        "Draw the spectrograms of {wildcards.run}"
    shell:
        'python "$SCRIPTS/spectrograms.py" --table {input.table:q} --renders {input.renders:q} {params.references}'
        " --threads {threads} --output {output:q} --log {log:q}"


rule collect:
    input:
        tables=expand("results/renders/{run}.csv", run=PLAN.renders),
        renders=ancient(expand("results/renders/{run}", run=PLAN.renders)),
        spectrograms=ancient(expand("results/spectrograms/{run}", run=PLAN.renders)),
        recordings=lambda wildcards: ancient(
            [path for corpus in PLAN.used_corpora() for path in PLAN.recordings(corpus)]
        ),
        pages=ancient([path.removesuffix("json") + "html" for path in PLAN.reports()]),
        evaluation="results/evaluation/summary.json",
        steps=expand("results/evaluation/{run}.svg", run=PLAN.evaluated_runs()),
        trainings=expand("results/checkpoints/{run}/training.json", run=PLAN.runs),
        curves=expand("results/checkpoints/{run}/loss.svg", run=PLAN.runs),
        # A model that one listens to has its card.
        cards=ancient([PLAN.card(run) for run in PLAN.runs]),
        reports=ancient(PLAN.reports()),
        datasets=ancient(list(dict.fromkeys(map(PLAN.datasets, PLAN.renders)))),
    output:
        report(
            directory("results/samples"),
            htmlindex="index.html",
            caption="../report/samples.rst",
            category="Samples",
            labels={"page": "samples to listen to"},
        ),
    log:
        "results/logs/collect.log",
    benchmark:
        "results/benchmarks/collect.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        # A megabyte of renders' tables becomes ten of page.
        mem_mb=lambda wildcards, input, attempt: grown(600 + 50 * megabytes(input.tables), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + 0.005 * sum(map(rows, input.tables)), attempt
        ),
    params:
        runs=[entry["label"] for entry in PLAN.renders.values()],
        dropped=lambda wildcards, input: [f"{folder}/dropped.csv" for folder in input.datasets],
        rendering=PLAN.renderings(),
        template=content_key(SCRIPTS / "sao" / "pages" / "samples.html.j2"),
        code=code_hash(SCRIPTS / "collect.py"),
    message:
        "Collect the samples of all runs: results/samples/index.html"
    shell:
        'python "$SCRIPTS/collect.py" --run {params.runs:q} --table {input.tables:q} --render {input.renders:q}'
        " --spectrograms {input.spectrograms:q} --evaluation {input.evaluation:q} --steps {input.steps:q}"
        " --training {input.trainings:q} --curve {input.curves:q} --rendering {params.rendering:q}"
        " --report {input.reports:q} --dropped {params.dropped:q} --output {output:q} --log {log:q}"
