# What rules may use beside Snakemake itself. The plan answers, and says how much memory and time a job asks for.
import inspect

from sao.config.settings import to_text


def _answer(method, renamed):
    """A method of the plan as a function of wildcards: those that its parameters name, or that `renamed` gives for them."""
    names = {name: renamed.get(name, name) for name in inspect.signature(method).parameters}
    return lambda wildcards: method(**{name: getattr(wildcards, names[name]) for name in names})


def ask(method, *marks, **renamed):
    """An input or a parameter: what the plan answers; each of `marks` (`ancient`, `given`, `local`) is put on it."""
    answer = _answer(method, renamed)

    def marked(wildcards):
        found = answer(wildcards)
        for mark in marks:
            found = mark(found)
        return found

    return marked


def settings(method, **renamed):
    """A parameter: the settings of a script, as text for its command line."""
    answer = _answer(method, renamed)
    return lambda wildcards: to_text(answer(wildcards))


def untracked(method, **renamed):
    """A parameter that is no rerun trigger: Snakemake takes functions of the output for none."""
    answer = _answer(method, renamed)

    def text(wildcards, output):
        found = answer(wildcards)
        return to_text(found) if isinstance(found, dict) else found

    return text


def named(name):
    """A parameter: the wildcard of this name where the rule has it, in a list."""
    return lambda wildcards: [getattr(wildcards, name)] if name in wildcards.keys() else []


def _amount(base, renamed, wildcards, input, of, per_mb, per_row):
    """`base`, which may be a method of the plan, and what the sizes and rows of inputs add to it."""
    files = input if of is None else input[of]
    amount = _answer(base, renamed)(wildcards) if callable(base) else base
    amount += per_mb * megabytes(files) if per_mb else 0
    if per_row:
        amount += per_row * sum(map(rows, [files] if isinstance(files, str) else files))
    return amount


def mb(base, per_mb=0, per_row=0, of=None, **renamed):
    """Memory that a job asks for, in MB; more at each attempt. `of` names the inputs whose sizes or rows count."""
    return lambda wildcards, input, attempt: grown(
        _amount(base, renamed, wildcards, input, of, per_mb, per_row), attempt
    )


def minutes(base, per_mb=0, per_row=0, of=None, **renamed):
    """Time that a job asks for, in minutes."""
    return lambda wildcards, input, attempt: PLAN.minutes(
        _amount(base, renamed, wildcards, input, of, per_mb, per_row), attempt
    )


def given(paths):
    """What is a user's own, and not made here, is no part of a storage.

    Snakemake takes braces in a path for a wildcard, and has no way to write them otherwise. A user's path with braces is
    no input, then: it is there before the graph, and its content is a trigger by other means.
    """
    paths = [paths] if isinstance(paths, str) else paths
    return [
        path if path.startswith("results/") else local(path)
        for path in paths
        if path.startswith("results/") or not set(path) & set("{}")
    ]
