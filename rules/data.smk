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
        file=PLAN.file_names(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: grown(300, attempt),
        runtime=lambda wildcards, attempt: PLAN.minutes(720, attempt),
        # The profile allows two at a time from elsewhere.
        download=lambda wildcards: int(PLAN.is_remote(wildcards.corpus, wildcards.file)),
    params:
        check=lambda wildcards: PLAN.download_check(wildcards.corpus, wildcards.file),
        # A function of the output is no rerun trigger: the checksum says what a file is, not the place it is from.
        source=lambda wildcards, output: PLAN.download_source(wildcards.corpus, wildcards.file),
        code=code_hash(SCRIPTS / "download.py"),
    message:
        "Download {wildcards.file} of corpus {wildcards.corpus} and check it"
    shell:
        'python "$SCRIPTS/download.py" {params.source} {params.check}'
        " --output {output.file:q} --digest {output.digest:q} --log {log:q}"


rule extract:
    input:
        # Large, and vouched for by the small digest: a touch of the archive means nothing.
        archives=lambda wildcards: ancient(PLAN.archives(wildcards.corpus, wildcards.split)),
        digests=lambda wildcards: PLAN.archive_digests(wildcards.corpus, wildcards.split),
    output:
        audio=directory("results/data/{corpus}/audio/{split}"),
        facts="results/data/{corpus}/audio/{split}.csv",
    log:
        "results/logs/extract/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/extract/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.with_format("clotho"),
    conda:
        "../envs/data.yaml"
    # Decompressing fills one core, and measuring keeps up with it beside; so two archives share two cores.
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: grown(800, attempt),
        # Unpacks 10 MB of archive a second on a slow disk.
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + 0.002 * megabytes(input.archives), attempt
        ),
    params:
        code=code_hash(SCRIPTS / "extract.py"),
    message:
        "Unpack and measure {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        'python "$SCRIPTS/extract.py" --archive {input.archives:q} --split {wildcards.split:q}'
        " --threads {threads} --output {output.audio:q} --facts {output.facts:q} --log {log:q}"


rule scan:
    input:
        # Not the files themselves, of which there may be a million, but the list of them; no job makes it.
        lambda wildcards: local(PLAN.listing(wildcards.corpus, wildcards.split)),
    output:
        captions="results/data/{corpus}/captions/{split}.csv",
        facts="results/data/{corpus}/audio/{split}.csv",
        digests="results/data/{corpus}/audio/{split}.sha256",
    log:
        "results/logs/scan/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/scan/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.with_format("audiofolder"),
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(800 + 0.01 * rows(input[0]), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(10 + 0.002 * rows(input[0]), attempt),
    params:
        options=lambda wildcards: PLAN.scan_options(wildcards.corpus, wildcards.split),
        # A function of the output is no rerun trigger: what is made without an error is the same for both.
        on_invalid=lambda wildcards, output: PLAN.corpora[wildcards.corpus]["on_invalid"],
        code=code_hash(SCRIPTS / "scan.py"),
    message:
        "Read {wildcards.split} of the folder of corpus {wildcards.corpus}"
    shell:
        'python "$SCRIPTS/scan.py" {params.options} --on-invalid {params.on_invalid} --threads {threads}'
        " --captions {output.captions:q} --facts {output.facts:q} --digests {output.digests:q} --log {log:q}"


rule manifest:
    input:
        facts="results/data/{corpus}/audio/{split}.csv",
        captions=lambda wildcards: PLAN.captions(wildcards.corpus, wildcards.split),
        metadata=lambda wildcards: PLAN.metadata(wildcards.corpus, wildcards.split),
    output:
        "results/data/{corpus}/manifests/{split}.csv",
    log:
        "results/logs/manifest/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/manifest/{corpus}/{split}.tsv"
    wildcard_constraints:
        split=r"(?!dropped\.csv)[^/]+",
    conda:
        "../envs/data.yaml"
    resources:
        # At a million clips 1.5 to 2 times what was measured (docs/scaling.md); so for the next three rules.
        mem_mb=lambda wildcards, input, attempt: grown(400 + 12 * input.size_mb, attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(10 + input.size_mb, attempt),
    params:
        options=lambda wildcards: PLAN.manifest_options(wildcards.corpus, wildcards.split),
        # As of rule scan: no rerun trigger.
        on_invalid=lambda wildcards, output: PLAN.corpora[wildcards.corpus]["on_invalid"],
        code=code_hash(SCRIPTS / "manifest.py"),
    message:
        "Write the manifest of {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        'python "$SCRIPTS/manifest.py" --split {wildcards.split:q} {params.options} --facts {input.facts:q}'
        " --captions {input.captions:q} --metadata {input.metadata:q}"
        " --on-invalid {params.on_invalid} --output {output:q} --log {log:q}"


rule validate:
    input:
        manifests=lambda wildcards: PLAN.manifests(wildcards.corpus),
        # Named in the manifests, and vouched for by their hashes there.
        audio=lambda wildcards: ancient(PLAN.recordings(wildcards.corpus)),
    output:
        report="results/data/{corpus}/validation.json",
        page=report(
            "results/data/{corpus}/validation.html",
            caption="../report/corpus.rst",
            category="Corpora",
            labels={"corpus": "{corpus}"},
        ),
        dropped="results/data/{corpus}/manifests/dropped.csv",
    log:
        "results/logs/validate/{corpus}.log",
    benchmark:
        "results/benchmarks/validate/{corpus}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(
            600 + 10 * megabytes(input.manifests), attempt
        ),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + megabytes(input.manifests), attempt
        ),
    params:
        options=lambda wildcards: PLAN.validate_options(wildcards.corpus),
        code=code_hash(SCRIPTS / "validate.py"),
    message:
        "Validate corpus {wildcards.corpus}: results/data/{wildcards.corpus}/validation.html"
    shell:
        'python "$SCRIPTS/validate.py" --manifest {input.manifests:q} {params.options} --threads {threads}'
        " --output {output.report:q} --page {output.page:q} --dropped {output.dropped:q} --log {log:q}"


rule split:
    input:
        report="results/data/{corpus}/validation.json",
        dropped="results/data/{corpus}/manifests/dropped.csv",
        manifests=lambda wildcards: PLAN.manifests(wildcards.corpus),
    output:
        expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
    log:
        "results/logs/split/{corpus}.log",
    benchmark:
        "results/benchmarks/split/{corpus}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, input, attempt: grown(400 + 6 * input.size_mb, attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(10 + input.size_mb, attempt),
    params:
        split=lambda wildcards: PLAN.split(wildcards.corpus),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
        code=code_hash(SCRIPTS / "split.py"),
    message:
        "Split corpus {wildcards.corpus}"
    shell:
        'python "$SCRIPTS/split.py" --manifest {input.manifests:q} --split {params.split:q}'
        " --validation-report {input.report:q} --dropped {input.dropped:q}"
        " --output {params.folder:q} --log {log:q}"


rule dataset_configs:
    input:
        splits=expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
        model_config=ancient("results/models/{base_model}/model_config.json"),
        hub=ancient("results/models/{base_model}/hub"),
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
        mem_mb=lambda wildcards, input, attempt: grown(500 + 6 * megabytes(input.splits), attempt),
        runtime=lambda wildcards, input, attempt: PLAN.minutes(
            10 + megabytes(input.splits), attempt
        ),
    params:
        splits=lambda wildcards, input: os.path.dirname(input.splits[0]),
        source=lambda wildcards: PLAN.dataset_options(wildcards.corpus, wildcards.base_model),
        window=lambda wildcards: PLAN.crop_options(wildcards.corpus),
        on_invalid=lambda wildcards: PLAN.corpora[wildcards.corpus]["on_invalid"],
        # Where the configs lie stands in them: this path, in a storage too.
        output=lambda wildcards: f"results/data/{wildcards.corpus}/dataset_configs/{wildcards.base_model}",
        # A function of the output is no rerun trigger: another batch size is checked again by the training itself.
        runs=lambda wildcards, output: PLAN.batches(wildcards.corpus, wildcards.base_model),
        code=code_hash(SCRIPTS / "dataset_configs.py"),
    message:
        "Write the dataset configs of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        'python "$SCRIPTS/dataset_configs.py" --splits {params.splits:q}'
        " --model-config {input.model_config:q} --hub {input.hub:q} {params.source}"
        " {params.window} --on-invalid {params.on_invalid} --runs {params.runs:q}"
        " --output {params.output:q} --digest {output.digest:q} --log {log:q}"
