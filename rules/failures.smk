# What a failed run leaves behind: one line that says why, and nothing that is taken for up to date.
import atexit
import re


def mark_outdated(job):
    """Have Snakemake make anew what was once made from the outputs of a job that are gone.

    A job's outputs are removed before it starts. When it fails, Snakemake would take what follows from them for up to date,
    since a file in between may be missing, and the same command would say "Nothing to be done".
    """
    for later in workflow.dag.depending[job]:
        if any(workflow.async_run(file.exists()) for file in later.output):
            # `rerun-incomplete` in the profile takes it from there.
            workflow.persistence.started(later)
        else:
            mark_outdated(later)


def errors(paths):
    """The error lines of the jobs that failed, by Snakemake's logs at `paths`."""
    text = "".join(Path(path).read_text(encoding="utf-8", errors="replace") for path in paths)
    for job_log in dict.fromkeys(re.findall(r"log: (.+?) \(check log file", text)):
        lines = []
        if Path(job_log).is_file():  # a job that was killed may have none
            lines = Path(job_log).read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line.split(" ERROR ", 1)[1] for line in lines if " ERROR error: " in line]
        yield f"{found[-1]} ({job_log})" if found else f"error: look at {job_log}"


onerror:
    for job in workflow.dag.needrun_jobs():
        before = set(job.output) - set(workflow.dag.reason(job).missing_output)
        if any(not workflow.async_run(file.exists()) for file in before):
            mark_outdated(job)
    # Last of all: Snakemake has more to say.
    atexit.register(print, *errors(log), sep="\n", file=sys.stderr)
