# Archives -> WAVs -> manifests -> validated splits -> dataset configs. None of these scripts imports torch.


rule download:
    output:
        file="results/data/{corpus}/archives/{file}",
        digest="results/data/{corpus}/archives/checksums/{file}.txt",
    log:
        "results/logs/download/{corpus}/{file}.log",
    benchmark:
        "results/benchmarks/download/{corpus}/{file}.tsv"
    wildcard_constraints:
        file=PLAN.data.file_names(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(300),
        runtime=minutes(720),
        # The profile allows two downloads from other machines at a time.
        download=ask(PLAN.data.remote),
    params:
        algorithm=ask(PLAN.data.algorithm),
        checksum=ask(PLAN.data.checksum),
        size=ask(PLAN.data.size),
        # Not a rerun trigger: the checksum identifies the file, whatever its URL.
        url=untracked(PLAN.data.url),
        mirror=untracked(PLAN.data.mirror),
        code=code_of("download.py"),
    message:
        "Download {wildcards.file} of corpus {wildcards.corpus} and check it"
    shell:
        r"""
        python "$SCRIPTS/download.py" \
            --url {params.url:q} \
            --mirror {params.mirror:q} \
            --algorithm {params.algorithm} \
            --checksum {params.checksum} \
            --size {params.size:q} \
            --output {output.file:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """


rule extract:
    input:
        # `ancient`: the small digest represents the archive, so its time stamp does not count.
        archives=ask(PLAN.data.archives, ancient),
        digests=ask(PLAN.data.archive_digests),
    output:
        audio=directory("results/data/{corpus}/audio/{split}"),
        facts="results/data/{corpus}/audio/{split}.csv",
    log:
        "results/logs/extract/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/extract/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.pattern(in_place=False),
    conda:
        "../envs/data.yaml"
    # Decompressing one archive takes one core, and measuring runs beside it. So two archives share two cores.
    threads: 1
    resources:
        mem_mb=mb(800),
        # A slow disk unpacks 10 MB of archive per second.
        runtime=minutes(10, per_mb=0.002, of="archives"),
    params:
        code=code_of("extract.py"),
    message:
        "Unpack and measure {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/extract.py" \
            --archive {input.archives:q} \
            --split {wildcards.split:q} \
            --threads {threads} \
            --output {output.audio:q} \
            --facts {output.facts:q} \
            --log {log:q}
        """


rule fetch:
    output:
        audio=directory("results/data/{corpus}/audio/{split}"),
        source="results/data/{corpus}/hub/{split}.json",
    log:
        "results/logs/fetch/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/fetch/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.fetched_pattern(),
        split=PLAN.data.fetched_splits(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(2000),
        runtime=minutes(720),
        download=1,
    params:
        settings=settings(PLAN.data.fetch),
        code=code_of("fetch.py"),
    message:
        "Fetch {wildcards.split} of corpus {wildcards.corpus} from the Hub"
    shell:
        r"""
        python "$SCRIPTS/fetch.py" \
            --settings {params.settings:q} \
            --split {wildcards.split:q} \
            --output {output.audio:q} \
            --source {output.source:q} \
            --log {log:q}
        """


rule scan:
    # A user's folder is no input: there may be a million files. A key of the state of the folder stands for them.
    input:
        fetched=ask(PLAN.data.fetched_folder, ancient),
        source=ask(PLAN.data.fetched_source),
    output:
        captions="results/data/{corpus}/captions/{split}.csv",
        facts="results/data/{corpus}/audio/{split}.csv",
        digests="results/data/{corpus}/audio/{split}.sha256",
        # Looked at in every start, on this machine.
        listing=local("results/data/{corpus}/folder/{split}.txt"),
    log:
        "results/logs/scan/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/scan/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.pattern(in_place=True),
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=mb(PLAN.data.scan_mb),
        runtime=minutes(PLAN.data.scan_minutes),
    params:
        key=ask(PLAN.data.folder_key),
        settings=settings(PLAN.data.scan),
        # Not a rerun trigger: if no clip is invalid, both values give the same result.
        on_invalid=untracked(PLAN.data.on_invalid),
        code=code_of("scan.py"),
    message:
        "Read {wildcards.split} of the folder of corpus {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/scan.py" \
            --settings {params.settings:q} \
            --key {params.key} \
            --on-invalid {params.on_invalid} \
            --threads {threads} \
            --captions {output.captions:q} \
            --facts {output.facts:q} \
            --digests {output.digests:q} \
            --listing {output.listing:q} \
            --log {log:q}
        """


rule cut:
    input:
        # The table of facts has the hashes of the recordings, so their time stamps do not count.
        audio=ask(PLAN.data.source, given, ancient),
        facts="results/data/{corpus}/audio/{split}.csv",
        captions=ask(PLAN.data.source_captions),
        metadata=ask(PLAN.data.source_metadata),
    output:
        audio=directory("results/data/{corpus}/cuts/audio/{split}"),
        facts="results/data/{corpus}/cuts/audio/{split}.csv",
        table="results/data/{corpus}/cuts/{split}.csv",
        left_out="results/data/{corpus}/cuts/left_out/{split}.csv",
    log:
        "results/logs/cut/{corpus}/{split}.log",
    benchmark:
        "results/benchmarks/cut/{corpus}/{split}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.cut_pattern(),
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=mb(800, per_mb=12, of="facts"),
        # A recording may last for hours.
        runtime=minutes(30, per_row=0.2, of="facts"),
    params:
        settings=settings(PLAN.data.cut),
        # Not a rerun trigger: if no clip is invalid, both values give the same result.
        on_invalid=untracked(PLAN.data.on_invalid),
        code=code_of("cut.py"),
    message:
        "Cut the recordings of {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/cut.py" \
            --settings {params.settings:q} \
            --facts {input.facts:q} \
            --captions {input.captions:q} \
            --metadata {input.metadata:q} \
            --on-invalid {params.on_invalid} \
            --threads {threads} \
            --output {output.audio:q} \
            --clip-facts {output.facts:q} \
            --table {output.table:q} \
            --left-out {output.left_out:q} \
            --log {log:q}
        """


rule manifest:
    input:
        facts=ask(PLAN.data.facts),
        captions=ask(PLAN.data.captions),
        metadata=ask(PLAN.data.metadata),
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
        # 1.5 to 2 times the measured values at a million clips (docs/guides/scaling.md). So in the next three rules.
        mem_mb=mb(400, per_mb=12),
        runtime=minutes(10, per_mb=1),
    params:
        settings=settings(PLAN.data.manifest),
        # Not a rerun trigger: if no clip is invalid, both values give the same result.
        on_invalid=untracked(PLAN.data.on_invalid),
        code=code_of("manifest.py"),
    message:
        "Write the manifest of {wildcards.split} of corpus {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/manifest.py" \
            --split {wildcards.split:q} \
            --settings {params.settings:q} \
            --facts {input.facts:q} \
            --captions {input.captions:q} \
            --metadata {input.metadata:q} \
            --on-invalid {params.on_invalid} \
            --output {output:q} \
            --log {log:q}
        """


rule validate:
    input:
        manifests=ask(PLAN.data.manifests),
        # The manifests name these files and have their hashes.
        audio=ask(PLAN.data.recordings, ancient),
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
    wildcard_constraints:
        corpus=PLAN.data.plain(),
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=mb(600, per_mb=10, of="manifests"),
        runtime=minutes(10, per_mb=1, of="manifests"),
    params:
        settings=settings(PLAN.data.validate),
        code=code_of("validate.py"),
    message:
        "Validate corpus {wildcards.corpus}: results/data/{wildcards.corpus}/validation.html"
    shell:
        r"""
        python "$SCRIPTS/validate.py" \
            --manifest {input.manifests:q} \
            --settings {params.settings:q} \
            --threads {threads} \
            --output {output.report:q} \
            --page {output.page:q} \
            --dropped {output.dropped:q} \
            --log {log:q}
        """


rule split:
    input:
        report="results/data/{corpus}/validation.json",
        dropped="results/data/{corpus}/manifests/dropped.csv",
        manifests=ask(PLAN.data.manifests),
    output:
        expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
    log:
        "results/logs/split/{corpus}.log",
    benchmark:
        "results/benchmarks/split/{corpus}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.plain(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400, per_mb=6),
        runtime=minutes(10, per_mb=1),
    params:
        settings=settings(PLAN.data.split),
        folder=subpath(output[0], parent=True),
        code=code_of("split.py"),
    message:
        "Split corpus {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/split.py" \
            --manifest {input.manifests:q} \
            --settings {params.settings:q} \
            --validation-report {input.report:q} \
            --dropped {input.dropped:q} \
            --output {params.folder:q} \
            --log {log:q}
        """


# The same for a mixture of corpora, which are validated and split before.
rule mix:
    input:
        splits=ask(PLAN.data.split_tables),
    output:
        report="results/data/{corpus}/validation.json",
        page=report(
            "results/data/{corpus}/validation.html",
            caption="../report/corpus.rst",
            category="Corpora",
            labels={"corpus": "{corpus}"},
        ),
        splits=expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
    log:
        "results/logs/mix/{corpus}.log",
    benchmark:
        "results/benchmarks/mix/{corpus}.tsv"
    wildcard_constraints:
        corpus=PLAN.data.mixed(),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(600, per_mb=10),
        runtime=minutes(10, per_mb=1),
    params:
        splits=ask(PLAN.data.split_folders),
        settings=settings(PLAN.data.mix),
        folder=ask(PLAN.data.split_folder),
        code=code_of("mix.py"),
    message:
        "Mix corpora: {wildcards.corpus}"
    shell:
        r"""
        python "$SCRIPTS/mix.py" \
            --splits {params.splits:q} \
            --settings {params.settings:q} \
            --report {output.report:q} \
            --page {output.page:q} \
            --output {params.folder:q} \
            --log {log:q}
        """


# Only for a corpus with `train_seconds: auto`.
rule window:
    input:
        splits=expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
        model_config=ancient("results/models/{base_model}/model_config.json"),
        model_digest="results/models/{base_model}/checksums.sha256",
    output:
        "results/data/{corpus}/windows/{base_model}.json",
    log:
        "results/logs/window/{corpus}/{base_model}.log",
    benchmark:
        "results/benchmarks/window/{corpus}/{base_model}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(400, per_mb=6, of="splits"),
        runtime=minutes(10),
    params:
        splits=ask(PLAN.data.split_folder),
        code=code_of("window.py"),
    message:
        "Choose the training window of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/window.py" \
            --splits {params.splits:q} \
            --model-config {input.model_config:q} \
            --output {output:q} \
            --log {log:q}
        """


rule dataset_configs:
    input:
        splits=expand("results/data/{{corpus}}/splits/{role}.csv", role=ROLES),
        window=ask(PLAN.data.window_files),
        model_config=ancient("results/models/{base_model}/model_config.json"),
        hub=ancient("results/models/{base_model}/hub"),
        model_digest="results/models/{base_model}/checksums.sha256",
        hook=ask(PLAN.data.hooks, given, ancient),
    output:
        datasets=directory("results/data/{corpus}/dataset_configs/{base_model}"),
        kept="results/data/{corpus}/dataset_configs/{base_model}.csv",
        digest="results/data/{corpus}/dataset_configs/{base_model}.sha256",
    log:
        "results/logs/dataset_configs/{corpus}/{base_model}.log",
    benchmark:
        "results/benchmarks/dataset_configs/{corpus}/{base_model}.tsv"
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=mb(500, per_mb=6, of="splits"),
        runtime=minutes(10, per_mb=1, of="splits"),
    params:
        splits=ask(PLAN.data.split_folder),
        settings=settings(PLAN.data.datasets),
        hook=ask(PLAN.data.hook_content),
        # The configs contain their own path, which has to be this one in object storage too.
        output=ask(PLAN.data.dataset_folder),
        # Not a rerun trigger, because the training checks the batch size again.
        batches=untracked(PLAN.data.batches),
        code=code_of("dataset_configs.py"),
    message:
        "Write the dataset configs of corpus {wildcards.corpus} for base model {wildcards.base_model}"
    shell:
        r"""
        python "$SCRIPTS/dataset_configs.py" \
            --splits {params.splits:q} \
            --model-config {input.model_config:q} \
            --hub {input.hub:q} \
            --settings {params.settings:q} \
            --batches {params.batches:q} \
            --output {params.output:q} \
            --kept {output.kept:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """
