# Results in object storage: docs/guides/scaling.md.

# Results are local copies there. Tables and configs hold paths `results/…`: to those.
if storage.default_storage_provider:
    query = f"{workflow.storage_settings.default_storage_prefix}/results"
    try:
        link_folder(Path("results"), storage.default_storage_provider.object(query).local_path())
    except InputError as error:
        raise WorkflowError(str(error)) from None
