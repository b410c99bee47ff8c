# Declared weights of embeddings and watermarks: from a URL, the Hub or a path, checked by their hash.


use rule download as download_weights with:
    output:
        # Rule weights keeps its tensors alone.
        file=temp("results/weights/{weights}/downloaded/{file}"),
        digest=temp("results/weights/{weights}/downloaded/{file}.txt"),
    log:
        "results/logs/download_weights/{weights}/{file}.log",
    benchmark:
        "results/benchmarks/download_weights/{weights}/{file}.tsv"
    wildcard_constraints:
        weights=PLAN.weights.pattern(),
        file=PLAN.weights.file_names(),
    resources:
        mem_mb=mb(300),
        runtime=minutes(720),
        download=1,
    params:
        algorithm="sha256",
        checksum=ask(PLAN.weights.sha256),
        size=[],
        # Not a rerun trigger: the checksum identifies the file, whatever its URL.
        url=untracked(PLAN.weights.url),
        mirror=[],
        code=code_of("download.py"),
    message:
        "Download the weights {wildcards.file} of {wildcards.weights} and check them"


rule weights:
    input:
        ask(PLAN.weights.files, given, ancient),
    output:
        weights="results/weights/{weights}/model.safetensors",
        digest="results/weights/{weights}/checksums.sha256",
    log:
        "results/logs/weights/{weights}.log",
    benchmark:
        "results/benchmarks/weights/{weights}.tsv"
    wildcard_constraints:
        weights=PLAN.weights.pattern(),
    # A file of another network, or a package that is missing, is known before anything slow.
    priority: 100
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=mb(3000),
        runtime=minutes(240),
    params:
        file=ask(PLAN.weights.files),
        content=ask(PLAN.weights.content),
        settings=settings(PLAN.weights.settings),
        code=code_of("weights.py"),
    message:
        "Bring the weights of {wildcards.weights} into place"
    shell:
        r"""
        python "$SCRIPTS/weights.py" \
            --name {wildcards.weights:q} \
            --settings {params.settings:q} \
            --file {params.file:q} \
            --output {output.weights:q} \
            --digest {output.digest:q} \
            --log {log:q}
        """
