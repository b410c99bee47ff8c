# Results in object storage: docs/scaling.md.

# Results are local copies there. Tables and configs hold paths `results/…`: to those.
if storage.default_storage_provider:
    query = f"{workflow.storage_settings.default_storage_prefix}/results"
    try:
        link_folder(Path("results"), storage.default_storage_provider.object(query).local_path())
    except InputError as error:
        raise WorkflowError(str(error)) from None


def given(paths):
    """What is a user's own, and not made here, is no part of a storage.

    Nor is it an input where there is a brace in its path, which Snakemake would take for a wildcard: listings and content
    keys see what changes in it.
    """
    usable = [path for path in paths if "{" not in path and "}" not in path]
    return [path if path.startswith("results/") else local(path) for path in usable]
