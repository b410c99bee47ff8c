# The helpers that rules may use besides Snakemake itself. They ask the plan for files, settings, memory and time.
import functools
import inspect

from sao.config.settings import to_text
from sao.plan.code import code_hash, read_text

TEXTS = functools.cache(read_text)  # most modules are part of many scripts


def code_of(script):
    """For `params`: the hash of the code of a script and of all that it imports."""
    return code_hash(SCRIPTS / script, TEXTS)


def _answer(method, renamed):
    """A method of the plan as a function of wildcards. Its parameters are the names of wildcards, or `renamed` maps them."""
    names = {name: renamed.get(name, name) for name in inspect.signature(method).parameters}
    return lambda wildcards: method(**{name: getattr(wildcards, names[name]) for name in names})


def ask(method, *marks, **renamed):
    """For `input` and `params`: the answer of a method of the plan, passed through each of `marks` (`ancient`, `given` …)."""
    answer = _answer(method, renamed)

    def marked(wildcards):
        paths = answer(wildcards)
        for mark in marks:
            paths = mark(paths)
        return paths

    return marked


def settings(method, **renamed):
    """For `params`: the settings of a script, as text for its command line."""
    answer = _answer(method, renamed)
    return lambda wildcards: to_text(answer(wildcards))


def untracked(method, **renamed):
    """For `params`: an answer of the plan that is no rerun trigger, because it is a function of the output."""
    answer = _answer(method, renamed)

    def text(wildcards, output):
        value = answer(wildcards)
        return to_text(value) if isinstance(value, dict) else value

    return text


def named(name):
    """For `params`: a list with the wildcard of this name, or an empty list if the rule does not have it."""
    return lambda wildcards: [getattr(wildcards, name)] if name in wildcards.keys() else []


def or_stop(nothing):
    """A mark for `ask`: the paths, or if there are none, the end of Snakemake with the line that `nothing` gives.

    Snakemake would print the traceback of an exception.
    """

    def checked(paths):
        return paths or sys.exit(f"error: {nothing()}")

    return checked


def unless_refused(reason):
    """A mark for `ask`: no files, or the end of Snakemake if the plan has a reason to refuse."""
    return sys.exit(f"error: {reason}") if reason else []


def _amount(base, renamed, wildcards, input, of, per_mb, per_row):
    """`base` (a number or a method of the plan) plus amounts for the size and the rows of inputs."""
    files = input if of is None else input[of]
    amount = _answer(base, renamed)(wildcards) if callable(base) else base
    amount += per_mb * megabytes(files) if per_mb else 0
    if per_row:
        amount += per_row * sum(map(rows, [files] if isinstance(files, str) else files))
    return amount


def mb(base, per_mb=0, per_row=0, of=None, **renamed):
    """Memory that a job asks for, in MB, growing with each attempt. `of` names the inputs whose sizes or rows count."""
    return lambda wildcards, input, attempt: grown(
        _amount(base, renamed, wildcards, input, of, per_mb, per_row), attempt
    )


def minutes(base, per_mb=0, per_row=0, of=None, **renamed):
    """Time that a job asks for, in minutes."""
    return lambda wildcards, input, attempt: PLAN.minutes(
        _amount(base, renamed, wildcards, input, of, per_mb, per_row), attempt
    )


def given(paths):
    """Keep a user's own files out of object storage, because the graph does not make them.

    Snakemake takes braces in a path for a wildcard, and they cannot be escaped. So a user's path with braces is not
    declared as an input. It exists before the graph starts, and a parameter makes its content a rerun trigger.
    """
    paths = [paths] if isinstance(paths, str) else paths
    return [
        path if path.startswith("results/") else local(path)
        for path in paths
        if path.startswith("results/") or not set(path) & set("{}")
    ]
