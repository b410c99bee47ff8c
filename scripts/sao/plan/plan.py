"""Which files a config asks for, in chapters: one for each file of rules.

A chapter asks those before it alone. It returns paths, numbers and settings; the rules turn them into commands. Where those
depend on what is on the disk, that is looked at: a user's folder, the length of a table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from sao.config.resolve import Config
from sao.plan.data import Data
from sao.plan.evaluation import Evaluation
from sao.plan.exports import Exports
from sao.plan.listening import Listening
from sao.plan.models import Models
from sao.plan.pages import Pages
from sao.plan.publish import Publish
from sao.plan.rendering import Rendering
from sao.plan.resources import grown
from sao.plan.runs import Runs
from sao.plan.training import Training
from sao.plan.weights import Weights


class Plan:
    """The chapters of a resolved config. Raises InputError where a leg of a training cannot fit the walltime,
    and on an export that a run cannot have.

    Nothing is written, but where `remembers` says that jobs are going to run: then it is noted which files of a user's
    folder were looked into and are still the same.
    """

    def __init__(self, config: Config, remembers: Callable[[], bool] = lambda: False) -> None:
        self.runs = Runs(config)
        self.data = Data(config, self.runs, remembers)
        self.models = Models(config, self.runs)
        self.training = Training(config, self.runs, self.data, self.models)
        self.weights = Weights(config)
        self.rendering = Rendering(config, self.runs, self.data, self.models, self.weights)
        self.listening = Listening(config, self.runs, self.models, self.rendering)
        self.evaluation = Evaluation(config, self.runs, self.data, self.models, self.rendering, self.weights)
        self.pages = Pages(self.runs, self.models, self.training, self.rendering, self.evaluation)
        self.exports = Exports(self.runs, self.data, self.models, self.training)
        self.publish = Publish(self.runs, self.data, self.models, self.rendering, self.exports)
        self.walltime = config["cluster"]["walltime"]
        self.training.check_walltime()
        self.exports.check()

    def downloads(self) -> list[str]:
        """All that comes from elsewhere: the files of the corpora, base models, embeddings."""
        return [*dict.fromkeys(self.data.downloads() + self.models.downloads() + self.evaluation.downloads())]

    def minutes(self, needed: float, attempt: int = 1) -> int:
        """What a job asks for: more at each attempt, and no more than the longest that a scheduler gives."""
        return min(grown(needed, attempt), self.walltime or sys.maxsize)
