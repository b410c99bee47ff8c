# Latents -> training, leg by leg -> loss curves -> exported model.


rule encode:
    input:
        audio=lambda wildcards: ancient(given([PLAN.audio(wildcards.corpus, wildcards.split)])),
        facts="results/data/{corpus}/audio/{split}.csv",
        weights=ancient("results/models/{base_model}/model.safetensors"),
        model=ancient(
            expand("results/models/{{base_model}}/{file}", file=["model_config.json", "hub"])
        ),
        model_digest="results/models/{base_model}/checksums.sha256",
        # For its order alone: no audio is encoded before corpus and captions passed every check, and a changed
        # caption encodes nothing anew.
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
        mem_mb=lambda wildcards, attempt: grown(
            PLAN.base_models[wildcards.base_model]["memory_mb"], attempt
        ),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            START + ENCODED / 60 * rows(input.facts) / PLAN.shards, attempt
        ),
        gpu=lambda wildcards: PLAN.base_models[wildcards.base_model]["gpus"],
    params:
        # Not the input, which a path with braces cannot be. A function of the output is no rerun trigger: the facts say
        # what the sounds are.
        audio=lambda wildcards, output: PLAN.audio(wildcards.corpus, wildcards.split),
        model=lambda wildcards, input: os.path.dirname(input.weights),
        window=lambda wildcards: PLAN.crop_options(wildcards.corpus),
        code=code_hash(SCRIPTS / "encode.py"),
    message:
        "Encode {wildcards.split} ({wildcards.shard}) of corpus {wildcards.corpus} with base model {wildcards.base_model}"
    shell:
        'python "$SCRIPTS/encode.py" --audio {params.audio:q} --facts {input.facts:q}'
        " --split {wildcards.split:q} --shard {wildcards.shard} --model {params.model:q}"
        " --model-digest {input.model_digest:q} {params.window} --threads {threads} --code {params.code}"
        " --output {output.latents:q} --digest {output.digest:q} --log {log:q}"


# A leg of a training: from the state of the leg before to its own.
rule train:
    input:
        state=lambda wildcards: ancient(PLAN.leg_state(wildcards.run, wildcards.leg)),
        state_digest=lambda wildcards: ancient(
            PLAN.leg_state(wildcards.run, wildcards.leg, "checksums.sha256")
        ),
        datasets=lambda wildcards: ancient(PLAN.datasets(wildcards.run)),
        datasets_digest=lambda wildcards: f"{PLAN.datasets(wildcards.run)}.sha256",
        sounds=lambda wildcards: ancient(given(PLAN.sounds(wildcards.run))),
        sound_digests=lambda wildcards: PLAN.sound_digests(wildcards.run),
        weights=lambda wildcards: ancient(f"{PLAN.model_folder(wildcards.run)}/model.safetensors"),
        model=lambda wildcards: ancient(PLAN.model_files(wildcards.run)),
        model_digest=lambda wildcards: f"{PLAN.model_folder(wildcards.run)}/checksums.sha256",
    output:
        # Removed once the next leg stands.
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
        # What follows the name of the run decides, too.
        run=rf"(?={PLAN.legs_pattern()})(?!({PLAN.kept_states()})/)[^/]+",
    conda:
        "../envs/model.yaml"
    threads: lambda wildcards: PLAN.resources(wildcards.run, "threads")
    resources:
        mem_mb=lambda wildcards, attempt: grown(PLAN.resources(wildcards.run, "mem_mb"), attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(
            PLAN.leg_minutes(wildcards.run, wildcards.leg), attempt
        ),
        gpu=lambda wildcards: PLAN.resources(wildcards.run, "gpu"),
        gres=lambda wildcards: PLAN.resources(wildcards.run, "gres"),
        # Several processes are started by srun in the job, one for each device of each node.
        nodes=lambda wildcards: PLAN.runs[wildcards.run]["num_nodes"],
        mpi=lambda wildcards: "srun" if PLAN.processes(wildcards.run) > 1 else None,
        tasks=lambda wildcards: PLAN.resources(wildcards.run, "tasks"),
        tasks_per_node=lambda wildcards: PLAN.resources(wildcards.run, "tasks_per_node"),
        tasks_per_gpu=lambda wildcards: PLAN.resources(wildcards.run, "tasks_per_gpu"),
        cpus_per_task=lambda wildcards: PLAN.resources(wildcards.run, "cpus_per_task"),
    params:
        settings=lambda wildcards: PLAN.leg_settings(wildcards.run),
        # A function of the output is no rerun trigger: another logger trains nothing anew.
        running=lambda wildcards, output: PLAN.leg_settings(wildcards.run, moving=False),
        # Nor is a longer training.
        last=lambda wildcards, output: os.path.basename(PLAN.last_leg(wildcards.run)),
        resume=lambda wildcards, input: " ".join(
            f"--resume {shlex.quote(path)}" for path in input.state
        ),
        model=lambda wildcards, input: os.path.dirname(input.weights),
        folder=lambda wildcards, output: os.path.dirname(output.summary),
        launch=lambda wildcards, output: PLAN.launcher(wildcards.run),
        code=code_hash(SCRIPTS / "train.py"),
    message:
        "Train run {wildcards.run} to {wildcards.leg}"
    shell:
        '{params.launch}python "$SCRIPTS/train.py" --run {wildcards.run:q} --leg {wildcards.leg} --last {params.last} {params.resume}'
        " --settings {params.settings:q} --running {params.running:q}"
        " --dataset-configs {input.datasets:q} --datasets-digest {input.datasets_digest:q} --sound-digest {input.sound_digests:q}"
        " --model {params.model:q} --model-digest {input.model_digest:q} --code {params.code}"
        " --output {params.folder:q} --log {log:q}"


# The same for the legs whose state stays: the last, from which a longer training goes on.
use rule train as train_last with:
    output:
        state="results/checkpoints/{run}/{leg}/state.ckpt",
        weights=directory("results/checkpoints/{run}/{leg}/weights"),
        metrics="results/checkpoints/{run}/{leg}/metrics.csv",
        summary="results/checkpoints/{run}/{leg}/training.json",
        speed="results/checkpoints/{run}/{leg}/speed.json",
        checksums="results/checkpoints/{run}/{leg}/checksums.sha256",
    wildcard_constraints:
        run=rf"(?=({PLAN.kept_states()})/)[^/]+",


rule curves:
    input:
        metrics=lambda wildcards: f"{PLAN.last_leg(wildcards.run)}/metrics.csv",
        legs=lambda wildcards: expand(
            "results/checkpoints/{run}/{leg}/training.json",
            run=wildcards.run,
            leg=PLAN.legs(wildcards.run),
        ),
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
        mem_mb=lambda wildcards, attempt: grown(400, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(10, attempt),
    params:
        code=code_hash(SCRIPTS / "curves.py"),
    message:
        "Draw the losses of run {wildcards.run}"
    shell:
        'python "$SCRIPTS/curves.py" --run {wildcards.run:q} --metrics {input.metrics:q} --leg {input.legs:q}'
        " --output {output.metrics:q} --picture {output.picture:q} --summary {output.summary:q} --log {log:q}"


# Of a run (`results/checkpoints/demo/`) or of one of its legs (`results/checkpoints/demo/step-00000500/`).
rule export:
    input:
        trained=lambda wildcards: ancient(PLAN.to_export(wildcards.exported, "weights")),
        trainings=lambda wildcards: PLAN.to_export(wildcards.exported, "training.json"),
        checksums=lambda wildcards: ancient(PLAN.to_export(wildcards.exported, "checksums.sha256")),
        weights=lambda wildcards: ancient(
            f"{PLAN.model_folder(wildcards.exported)}/model.safetensors"
        ),
        model=lambda wildcards: ancient(PLAN.model_files(wildcards.exported)),
        model_digest=lambda wildcards: ancient(
            f"{PLAN.model_folder(wildcards.exported)}/checksums.sha256"
        ),
    output:
        weights="results/checkpoints/{exported}/model.safetensors",
        config="results/checkpoints/{exported}/model_config.json",
        digest="results/checkpoints/{exported}/export.json",
    log:
        "results/logs/export/{exported}.log",
    benchmark:
        "results/benchmarks/export/{exported}.tsv"
    wildcard_constraints:
        exported=rf"[^/]+|{PLAN.legs_pattern()}",
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(PLAN.memory(wildcards.exported), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            START + 0.005 * megabytes(input.weights), attempt
        ),
    params:
        model=lambda wildcards, input: os.path.dirname(input.weights),
        folder=lambda wildcards, output: os.path.dirname(output.digest),
        code=code_hash(SCRIPTS / "export.py"),
    message:
        "Export the model of {wildcards.exported}"
    shell:
        'python "$SCRIPTS/export.py" --trained {input.trained:q} --training {input.trainings:q}'
        " --checksums {input.checksums:q} --model {params.model:q} --model-digest {input.model_digest:q}"
        " --output {params.folder:q} --digest {output.digest:q} --log {log:q}"
