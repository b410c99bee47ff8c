# After a failed run: print one line that says why, and mark all files that depend on a failed job as outdated.
import atexit
import re


def mark_outdated(job):
    """Make Snakemake renew the files that were made from a failed job's old outputs.

    Snakemake removes a job's outputs before it starts. If the job fails, files that depend on those outputs would still
    look up to date, because Snakemake accepts a missing file in between. Then the same command would say "Nothing to be
    done".
    """
    for later in workflow.dag.depending[job]:
        if any(workflow.async_run(file.exists()) for file in later.output):
            # A job that has started but not finished is run again because of `rerun-incomplete` in the profile.
            workflow.persistence.started(later)
        else:
            mark_outdated(later)


def errors(paths):
    """The error lines of the failed jobs that Snakemake's logs at `paths` name."""
    text = "".join(Path(path).read_text(encoding="utf-8", errors="replace") for path in paths)
    for job_log in dict.fromkeys(re.findall(r"log: (.+?) \(check log file", text)):
        lines = []
        if Path(job_log).is_file():  # a killed job may have no log
            lines = Path(job_log).read_text(encoding="utf-8", errors="replace").splitlines()
        messages = [line.split(" ERROR ", 1)[1] for line in lines if " ERROR error: " in line]
        yield f"{messages[-1]} ({job_log})" if messages else f"error: look at {job_log}"


onerror:
    for job in workflow.dag.needrun_jobs():
        before = set(job.output) - set(workflow.dag.reason(job).missing_output)
        if any(not workflow.async_run(file.exists()) for file in before):
            mark_outdated(job)
    # At exit, because Snakemake prints more after this.
    atexit.register(print, *errors(log), sep="\n", file=sys.stderr)
