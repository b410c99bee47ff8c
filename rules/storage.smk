# Results in object storage: docs/scaling.md.
import re

# Results are local copies there. Tables and configs hold paths `results/…`: to those.
if storage.default_storage_provider:
    query = f"{workflow.storage_settings.default_storage_prefix}/results"
    try:
        link_folder(Path("results"), storage.default_storage_provider.object(query).local_path())
    except InputError as error:
        raise WorkflowError(str(error)) from None


def given(paths):
    """What is a user's own, and not made here, is no part of a storage.

    Snakemake takes braces in a path for a wildcard, and has no way to write them otherwise. A user's path with braces is
    no input, then: it is there before the graph, and its content is a trigger by other means.
    """
    return [
        path if path.startswith("results/") else local(path)
        for path in paths
        if path.startswith("results/") or not re.search("[{}]", path)
    ]
