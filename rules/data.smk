# Archives -> WAVs -> manifests -> validated splits -> dataset configs. None of these imports torch.


def published_files(corpus):
    """`{file name: config entry}` of every file that a corpus downloads."""
    entries = {}
    for split in CORPORA[corpus]["splits"].values():
        for entry in [*split["archives"], split["captions"], split["metadata"]]:
            entries[file_name(entry["url"])] = entry
    return entries


def download_arguments(wildcards):
    entry = published_files(wildcards.corpus)[wildcards.file]
    algorithm = "sha256" if "sha256" in entry else "md5"
    arguments = {"url": entry["url"], "algorithm": algorithm, "checksum": entry[algorithm]}
    return arguments | ({"size": entry["size"]} if "size" in entry else {})


def options(arguments):
    """Command-line options of a dictionary, quoted for the shell."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in arguments.items())


def published(kind):
    """Input function: the downloaded file or files of `kind` for a published split."""

    def files(wildcards):
        entry = CORPORA[wildcards.corpus]["splits"][wildcards.split][kind]
        entries = entry if isinstance(entry, list) else [entry]
        return [f"results/data/{wildcards.corpus}/archives/{file_name(e['url'])}" for e in entries]

    return files


def window(wildcards):
    """`--window-seconds N`, or nothing where the model's own window is used."""
    corpus = CORPORA[RENDERS[wildcards.run]["corpus"] if "run" in wildcards.keys() else wildcards.corpus]
    return "" if corpus["window_seconds"] is None else f"--window-seconds {corpus['window_seconds']}"


rule download:
    output:
        file="results/data/{corpus}/archives/{file}",
        digest="results/data/{corpus}/archives/checksums/{file}.txt",
    log:
        "results/logs/download/{corpus}/{file}.log",
    benchmark:
        "results/benchmarks/download/{corpus}/{file}.tsv"
    params:
        options=lambda wildcards: options(download_arguments(wildcards)),
        code=code_hash(SCRIPTS / "download.py"),
    wildcard_constraints:
        file="[^/]+",
    resources:
        mem_mb=300,
    conda:
        "../envs/data.yaml"
    message:
        "Download {wildcards.file} of corpus {wildcards.corpus} and check it"
    shell:
        "python {SCRIPTS:q}/download.py {params.options}"
        " --output {output.file:q} --digest {output.digest:q} --log {log:q}"


rule extract:
    input:
        # Large, and vouched for by the small digest: a touch of the archive means nothing.
        archives=lambda wildcards: ancient(published("archives")(wildcards)),
        digests=lambda wildcards: [
            f.replace("/archives/", "/archives/checksums/") + ".txt" for f in published("archives")(wildcards)
        ],
    output:
        audio=directory("results/data/{corpus}/audio/{split}"),
        digest="results/data/{corpus}/audio/{split}.sha256",
    log:
        "results/logs/extract/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/extract/{corpus}/{split}.tsv"
    params:
        code=code_hash(SCRIPTS / "extract.py"),
    resources:
        mem_mb=600,
    conda:
        "../envs/data.yaml"
    message:
        "Unpack {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        "python {SCRIPTS:q}/extract.py --archive {input.archives:q} --split {wildcards.split:q}"
        " --output {output.audio:q} --digest {output.digest:q} --log {log:q}"


rule manifest:
    input:
        audio=ancient("results/data/{corpus}/audio/{split}"),
        digest="results/data/{corpus}/audio/{split}.sha256",
        captions=published("captions"),
        metadata=published("metadata"),
    output:
        "results/data/{corpus}/manifests/{split}.csv",
    log:
        "results/logs/manifest/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/manifest/{corpus}/{split}.tsv"
    params:
        code=code_hash(SCRIPTS / "manifest.py"),
    threads: 2
    resources:
        mem_mb=1000,
    conda:
        "../envs/data.yaml"
    message:
        "Measure the clips of {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        "python {SCRIPTS:q}/manifest.py --split {wildcards.split:q} --audio {input.audio:q}"
        " --digest {input.digest:q} --captions {input.captions:q} --metadata {input.metadata:q}"
        " --threads {threads} --output {output:q} --log {log:q}"


rule validate:
    input:
        lambda wildcards: expand(
            "results/data/{{corpus}}/manifests/{split}.csv", split=published_splits(CORPORA[wildcards.corpus])
        ),
    output:
        "results/data/{corpus}/validation.json",
    log:
        "results/logs/validate/{corpus}.log",
    benchmark:
        "results/benchmarks/validate/{corpus}.tsv"
    params:
        roles=lambda wildcards: json.dumps(
            {split: role for role in ROLES for split in CORPORA[wildcards.corpus][role]}
        ),
        silence=lambda wildcards: CORPORA[wildcards.corpus]["silence_dbfs"],
        window=window,
        code=code_hash(SCRIPTS / "validate.py"),
    resources:
        mem_mb=400,
    conda:
        "../envs/data.yaml"
    message:
        "Validate corpus {wildcards.corpus}"
    shell:
        "python {SCRIPTS:q}/validate.py --manifest {input:q} --roles {params.roles:q}"
        " --silence-dbfs={params.silence} {params.window} --output {output:q} --log {log:q}"


rule split:
    input:
        report="results/data/{corpus}/validation.json",
        **{
            role: lambda wildcards, role=role: expand(
                "results/data/{corpus}/manifests/{split}.csv",
                corpus=wildcards.corpus,
                split=CORPORA[wildcards.corpus][role],
            )
            for role in ROLES
        },
    output:
        expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
    log:
        "results/logs/split/{corpus}.log",
    benchmark:
        "results/benchmarks/split/{corpus}.tsv"
    params:
        folder="results/data/{corpus}/splits",
        code=code_hash(SCRIPTS / "split.py"),
    resources:
        mem_mb=400,
    conda:
        "../envs/data.yaml"
    message:
        "Split corpus {wildcards.corpus}"
    shell:
        "python {SCRIPTS:q}/split.py --train {input.train:q} --validation {input.validation:q}"
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
    params:
        splits="results/data/{corpus}/splits",
        model="results/models/{base_model}",
        latents="results/latents/{base_model}/{corpus}",
        window=window,
        code=code_hash(SCRIPTS / "dataset_configs.py"),
    resources:
        mem_mb=500,
    conda:
        "../envs/data.yaml"
    message:
        "Write the dataset configs of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        "python {SCRIPTS:q}/dataset_configs.py --splits {params.splits:q}"
        " --model-config {input.model_config:q} --hub {params.model:q}/hub --latents {params.latents:q}"
        " {params.window} --output {output.datasets:q} --digest {output.digest:q} --log {log:q}"
