# Archives -> WAVs -> manifests -> validated splits -> dataset configs. None of these imports torch.


rule download:
    output:
        file="results/data/{corpus}/archives/{file}",
        digest="results/data/{corpus}/archives/checksums/{file}.txt",
    log:
        "results/logs/download/{corpus}/{file}.log",
    benchmark:
        "results/benchmarks/download/{corpus}/{file}.tsv"
    wildcard_constraints:
        file="[^/]+",
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=300,
    params:
        options=lambda wildcards: PLAN.download_options(wildcards.corpus, wildcards.file),
        code=code_hash(SCRIPTS / "download.py"),
    message:
        "Download {wildcards.file} of corpus {wildcards.corpus} and check it"
    shell:
        "python $SCRIPTS/download.py {params.options}"
        " --output {output.file:q} --digest {output.digest:q} --log {log:q}"


rule extract:
    input:
        # Large, and vouched for by the small digest: a touch of the archive means nothing.
        archives=lambda wildcards: ancient(PLAN.archives(wildcards.corpus, wildcards.split)),
        digests=lambda wildcards: PLAN.archive_digests(wildcards.corpus, wildcards.split),
    output:
        audio=directory("results/data/{corpus}/audio/{split}"),
        digest="results/data/{corpus}/audio/{split}.sha256",
    log:
        "results/logs/extract/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/extract/{corpus}/{split}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=600,
    params:
        code=code_hash(SCRIPTS / "extract.py"),
    message:
        "Unpack {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        "python $SCRIPTS/extract.py --archive {input.archives:q} --split {wildcards.split:q}"
        " --output {output.audio:q} --digest {output.digest:q} --log {log:q}"


rule manifest:
    input:
        audio=ancient("results/data/{corpus}/audio/{split}"),
        digest="results/data/{corpus}/audio/{split}.sha256",
        captions=lambda wildcards: PLAN.captions(wildcards.corpus, wildcards.split),
        metadata=lambda wildcards: PLAN.metadata(wildcards.corpus, wildcards.split),
    output:
        "results/data/{corpus}/manifests/{split}.csv",
    log:
        "results/logs/manifest/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/manifest/{corpus}/{split}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=1000,
    params:
        code=code_hash(SCRIPTS / "manifest.py"),
    message:
        "Measure the clips of {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        "python $SCRIPTS/manifest.py --split {wildcards.split:q} --audio {input.audio:q}"
        " --digest {input.digest:q} --captions {input.captions:q} --metadata {input.metadata:q}"
        " --threads {threads} --output {output:q} --log {log:q}"


rule validate:
    input:
        lambda wildcards: PLAN.manifests(wildcards.corpus),
    output:
        "results/data/{corpus}/validation.json",
    log:
        "results/logs/validate/{corpus}.log",
    benchmark:
        "results/benchmarks/validate/{corpus}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=400,
    params:
        roles=lambda wildcards: PLAN.roles(wildcards.corpus),
        silence=lambda wildcards: PLAN.corpora[wildcards.corpus]["silence_dbfs"],
        window=lambda wildcards: PLAN.window_options(wildcards.corpus),
        code=code_hash(SCRIPTS / "validate.py"),
    message:
        "Validate corpus {wildcards.corpus}"
    shell:
        "python $SCRIPTS/validate.py --manifest {input:q} --roles {params.roles:q}"
        " --silence-dbfs={params.silence} {params.window} --output {output:q} --log {log:q}"


rule split:
    input:
        report="results/data/{corpus}/validation.json",
        train=lambda wildcards: PLAN.manifests(wildcards.corpus, "train"),
        validation=lambda wildcards: PLAN.manifests(wildcards.corpus, "validation"),
        evaluation=lambda wildcards: PLAN.manifests(wildcards.corpus, "evaluation"),
    output:
        expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
    log:
        "results/logs/split/{corpus}.log",
    benchmark:
        "results/benchmarks/split/{corpus}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=400,
    params:
        folder=lambda wildcards, output: os.path.dirname(output[0]),
        code=code_hash(SCRIPTS / "split.py"),
    message:
        "Split corpus {wildcards.corpus}"
    shell:
        "python $SCRIPTS/split.py --train {input.train:q} --validation {input.validation:q}"
        " --evaluation {input.evaluation:q} --validation-report {input.report:q}"
        " --output {params.folder:q} --log {log:q}"


rule dataset_configs:
    input:
        splits=expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
        model_config=ancient("results/models/{base_model}/model_config.json"),
        model_digest="results/models/{base_model}/checksums.sha256",
    output:
        datasets=directory("results/data/{corpus}/dataset_configs/{base_model}"),
        digest="results/data/{corpus}/dataset_configs/{base_model}.sha256",
    log:
        "results/logs/dataset_configs/{corpus}/{base_model}.log",
    benchmark:
        "results/benchmarks/dataset_configs/{corpus}/{base_model}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=500,
    params:
        splits=lambda wildcards, input: os.path.dirname(input.splits[0]),
        model=lambda wildcards, input: os.path.dirname(input.model_config),
        latents="results/latents/{base_model}/{corpus}",
        window=lambda wildcards: PLAN.window_options(wildcards.corpus),
        code=code_hash(SCRIPTS / "dataset_configs.py"),
    message:
        "Write the dataset configs of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        "python $SCRIPTS/dataset_configs.py --splits {params.splits:q}"
        " --model-config {input.model_config:q} --hub {params.model:q}/hub --latents {params.latents:q}"
        " {params.window} --output {output.datasets:q} --digest {output.digest:q} --log {log:q}"
