# Results in object storage: docs/guides/scaling.md.

# With a storage plugin, results are local copies in another folder. Tables and configs contain paths `results/…`, so
# `results` becomes a link to that folder.
if storage.default_storage_provider:
    query = f"{workflow.storage_settings.default_storage_prefix}/results"
    try:
        link_folder(Path("results"), storage.default_storage_provider.object(query).local_path())
    except InputError as error:
        raise WorkflowError(str(error)) from None
