# Latents -> training, leg by leg -> loss curves -> exported model.


rule encode:
    input:
        audio=ask(PLAN.data.audio, given, ancient),
        facts=ask(PLAN.data.facts),
        window=ask(PLAN.data.window_files),
        weights=ancient("results/models/{base_model}/model.safetensors"),
        model=ancient(
            expand("results/models/{{base_model}}/{file}", file=["model_config.json", "hub"])
        ),
        model_digest="results/models/{base_model}/checksums.sha256",
        # An input only for the order: no audio is encoded before corpus and captions pass every check. A changed caption
        # encodes nothing anew.
        checked=ancient("results/data/{corpus}/dataset_configs/{base_model}.sha256"),
    output:
        latents=directory("results/latents/{base_model}/{corpus}/{split}/{shard}"),
        digest="results/latents/{base_model}/{corpus}/{split}/{shard}.json",
    log:
        "results/logs/encode/{base_model}/{corpus}/{split}/{shard}.log",
    benchmark:
        "results/benchmarks/encode/{base_model}/{corpus}/{split}/{shard}.tsv"
    wildcard_constraints:
        shard=r"\d{4}-of-\d{4}",
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=mb(PLAN.models.mb),
        runtime=minutes(START, per_row=ENCODED / 60 / PLAN.data.shards, of="facts"),
        gpu=ask(PLAN.models.gpus),
    params:
        # Not from `input`, because a path with braces cannot be declared there. The table of facts identifies the sounds.
        audio=untracked(PLAN.data.audio),
        model=subpath(input.weights, parent=True),
        settings=settings(PLAN.data.window),
        code=code_of("encode.py"),
    message:
        "Encode {wildcards.split} ({wildcards.shard}) of corpus {wildcards.corpus} with base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/encode.py" \
            --audio {params.audio:q} \
            --facts {input.facts:q} \
            --split {wildcards.split:q} \
            --shard {wildcards.shard} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --code {params.code} \
            --output {output.latents:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """


rule encode_captions:
    input:
        datasets=ancient("results/data/{corpus}/dataset_configs/{base_model}"),
        datasets_digest="results/data/{corpus}/dataset_configs/{base_model}.sha256",
        # An input only for the number of clips.
        kept=ancient("results/data/{corpus}/dataset_configs/{base_model}.csv"),
        model=ancient(
            expand("results/models/{{base_model}}/{file}", file=["model_config.json", "hub"])
        ),
        model_digest="results/models/{base_model}/checksums.sha256",
    output:
        captions="results/encoded_captions/{base_model}/{corpus}.safetensors",
        digest="results/encoded_captions/{base_model}/{corpus}.json",
    log:
        "results/logs/encode_captions/{base_model}/{corpus}.log",
    benchmark:
        "results/benchmarks/encode_captions/{base_model}/{corpus}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        mem_mb=mb(PLAN.models.mb),
        runtime=minutes(START, per_row=CAPTIONS / 60, of="kept"),
        gpu=ask(PLAN.models.gpus),
    params:
        model=subpath(input.model_digest, parent=True),
        code=code_of("encode_captions.py"),
    message:
        "Encode the captions of corpus {wildcards.corpus} with base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/encode_captions.py" \
            --dataset-configs {input.datasets:q} \
            --datasets-digest {input.datasets_digest:q} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --threads {threads} \
            --code {params.code} \
            --output {output.captions:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """


# One leg of a training, which continues from the state of the leg before.
rule train:
    input:
        state=ask(PLAN.training.state_before, ancient),
        state_digest=ask(PLAN.training.digest_before, ancient),
        datasets=ask(PLAN.training.dataset_folder, ancient),
        datasets_digest=ask(PLAN.training.dataset_digest),
        sounds=ask(PLAN.training.sounds, given, ancient),
        sound_digests=ask(PLAN.training.sound_digests),
        captions=ask(PLAN.training.captions, ancient),
        captions_digest=ask(PLAN.training.captions_digest),
        weights=ask(PLAN.models.start_weights, ancient),
        model=ask(PLAN.models.start_config, ancient),
        model_digest=ask(PLAN.models.start_digest),
        base_digest=ask(PLAN.models.base_digest, ancient),
    output:
        # Removed when the next leg is complete.
        state=temp("results/checkpoints/{run}/{leg}/state.ckpt"),
        weights=directory("results/checkpoints/{run}/{leg}/weights"),
        metrics="results/checkpoints/{run}/{leg}/metrics.csv",
        summary="results/checkpoints/{run}/{leg}/training.json",
        speed="results/checkpoints/{run}/{leg}/speed.json",
        checksums="results/checkpoints/{run}/{leg}/checksums.sha256",
    log:
        "results/logs/train/{run}/{leg}.log",
    benchmark:
        "results/benchmarks/train/{run}/{leg}.tsv"
    wildcard_constraints:
        # This pattern also looks at the leg, after the name of the run.
        run=PLAN.training.removed_states(),
    conda:
        "../envs/model.yaml"
    threads: ask(PLAN.training.threads)
    resources:
        mem_mb=mb(PLAN.training.mb),
        runtime=minutes(PLAN.training.leg_minutes),
        gpu=ask(PLAN.training.gpu),
        gres=ask(PLAN.training.gres),
        nodes=ask(PLAN.training.nodes),
        mpi=ask(PLAN.training.mpi),
        tasks=ask(PLAN.training.tasks),
        tasks_per_node=ask(PLAN.training.tasks_per_node),
        tasks_per_gpu=ask(PLAN.training.tasks_per_gpu),
        cpus_per_task=ask(PLAN.training.cpus_per_task),
    params:
        settings=settings(PLAN.training.settings),
        # Not a rerun trigger: another logger or a longer training trains nothing anew.
        running=untracked(PLAN.training.running),
        last=untracked(PLAN.runs.last_leg),
        launch=untracked(PLAN.training.launcher),
        model=subpath(input.weights, parent=True),
        folder=subpath(output.summary, parent=True),
        code=code_of("train.py"),
    message:
        "Train run {wildcards.run} to {wildcards.leg}"
    shell:
        r"""
        ${{SLURM_JOB_ID:+{params.launch}}} \
            python "$SCRIPTS/train.py" \
            --run {wildcards.run:q} \
            --leg {wildcards.leg} \
            --last {params.last} \
            --resume {input.state:q} \
            --settings {params.settings:q} \
            --running {params.running:q} \
            --dataset-configs {input.datasets:q} \
            --datasets-digest {input.datasets_digest:q} \
            --sound-digest {input.sound_digests:q} \
            --captions {input.captions:q} \
            --captions-digest {input.captions_digest:q} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --base-digest {input.base_digest:q} \
            --code {params.code} \
            --output {params.folder:q} \
            --log {log:q}
        """


# The same for legs whose state stays: the last one, from which a longer training continues.
use rule train as train_last with:
    output:
        state="results/checkpoints/{run}/{leg}/state.ckpt",
        weights=directory("results/checkpoints/{run}/{leg}/weights"),
        metrics="results/checkpoints/{run}/{leg}/metrics.csv",
        summary="results/checkpoints/{run}/{leg}/training.json",
        speed="results/checkpoints/{run}/{leg}/speed.json",
        checksums="results/checkpoints/{run}/{leg}/checksums.sha256",
    wildcard_constraints:
        run=rf"(?=({PLAN.training.kept_states()})/)[^/]+",


rule curves:
    input:
        metrics=ask(PLAN.training.last_metrics),
        legs=ask(PLAN.training.summaries),
    output:
        metrics="results/checkpoints/{run}/metrics.csv",
        picture=report(
            "results/checkpoints/{run}/loss.svg",
            caption="../report/loss.rst",
            category="Training",
            labels={"run": "{run}"},
        ),
        summary="results/checkpoints/{run}/training.json",
    log:
        "results/logs/curves/{run}.log",
    benchmark:
        "results/benchmarks/curves/{run}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400),
        runtime=minutes(10),
    params:
        code=code_of("curves.py"),
    message:
        "Draw the losses of run {wildcards.run}"
    shell:
        r"""
        python "$SCRIPTS/curves.py" \
            --run {wildcards.run:q} \
            --metrics {input.metrics:q} \
            --leg {input.legs:q} \
            --output {output.metrics:q} \
            --picture {output.picture:q} \
            --summary {output.summary:q} \
            --log {log:q}
        """


# Exports a run (`results/checkpoints/demo/`) or one of its legs (`results/checkpoints/demo/step-00000500/`).
rule export:
    input:
        trained=ask(PLAN.training.exported_weights, ancient),
        trainings=ask(PLAN.training.exported_summaries),
        checksums=ask(PLAN.training.exported_checksums, ancient),
        weights=ask(PLAN.models.start_weights, ancient, run="exported"),
        model=ask(PLAN.models.start_config, ancient, run="exported"),
        model_digest=ask(PLAN.models.start_digest, ancient, run="exported"),
    output:
        weights="results/checkpoints/{exported}/model.safetensors",
        config="results/checkpoints/{exported}/model_config.json",
        digest="results/checkpoints/{exported}/export.json",
    log:
        "results/logs/export/{exported}.log",
    benchmark:
        "results/benchmarks/export/{exported}.tsv"
    wildcard_constraints:
        exported=PLAN.runs.exported_pattern(),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(PLAN.models.run_mb, run="exported"),
        runtime=minutes(START, per_mb=0.005, of="weights"),
    params:
        model=subpath(input.weights, parent=True),
        folder=subpath(output.digest, parent=True),
        code=code_of("export.py"),
    message:
        "Export the model of {wildcards.exported}"
    shell:
        r"""
        python "$SCRIPTS/export.py" \
            --trained {input.trained:q} \
            --training {input.trainings:q} \
            --checksums {input.checksums:q} \
            --model {params.model:q} \
            --model-digest {input.model_digest:q} \
            --output {params.folder:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """
