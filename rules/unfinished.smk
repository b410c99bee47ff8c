# What a failed or interrupted job was to renew is not up to date.


def mark_outdated(job):
    """Have Snakemake make anew what was once made from the outputs of a job that are gone.

    A job's outputs are removed before it starts. When it fails, Snakemake would take what follows from them for up to date,
    since a file in between may be missing, and the same command would say "Nothing to be done".
    """
    for later in workflow.dag.depending[job]:
        if any(workflow.async_run(file.exists()) for file in later.output):
            workflow.persistence.started(
                later
            )  # `rerun-incomplete` in the profile takes it from there
        else:
            mark_outdated(later)


onerror:
    for job in workflow.dag.needrun_jobs():
        before = set(job.output) - set(workflow.dag.reason(job).missing_output)
        if any(not workflow.async_run(file.exists()) for file in before):
            mark_outdated(job)
