"""An engine that does everything an engine may do, and does it at the worst time."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from distclust.data.cache import node_cache
from distclust.data.refs import PartitionRef
from distclust.engines.base import BaseEngine
from distclust.engines.job import Job
from distclust.engines.protocol import EngineInfo, EngineOptions, Shared
from distclust.engines.task import Task, TaskOutcome, run_task


class HostileEngine(BaseEngine):
    """Run tasks one by one in this process, in the most unhelpful way that the protocol allows.

    * Everything is pickled on its way to the step and back.
    * Partitions are grouped into tasks at random, anew in each call; tasks run in random order.
    * Some tasks run twice, and either outcome is used.
    * Each attempt runs on one of several pretended nodes, with their own caches: cached blocks and row state are
      missing or of an older pass.
    * Nodes die: all that they cached is gone, before a task or after it ran.

    An algorithm that gives the same bits here and on `LocalEngine` keeps the laws that its engine relies on.

    Parameters
    ----------
    seed : int
        The same seed does the same harm to the same calls.
    options : EngineOptions, optional
        The token of ``options.node`` names the first node.
    n_nodes : int
        Pretended nodes.
    harm : float
        Probability of each kind of trouble per task, below 1.
    """

    def __init__(
        self, seed: int = 0, options: EngineOptions | None = None, *, n_nodes: int = 3, harm: float = 0.2
    ) -> None:
        info = EngineInfo("hostile", 3, 1 << 30, sees_driver_memory=True, shared_storage=True)
        super().__init__(info, options or EngineOptions())
        node = self.options.node
        self._random = random.Random(seed)
        self._harm = harm
        self._nodes = [replace(node, token=f"{node.token}-{i}") for i in range(n_nodes)]

    def _cut(self, refs: Sequence[PartitionRef]) -> list[tuple[int, int]]:
        n = len(refs)
        cuts = sorted(self._random.sample(range(1, n), self._random.randrange(n))) if n else []
        return list(pairwise([0, *cuts, n])) if n else []

    def _run(self, job: Job, shared: Shared) -> None:
        waiting = list(range(len(job.tasks)))
        while waiting:
            self.options.cancel.check()
            number = waiting.pop(self._random.randrange(len(waiting)))
            outcomes = self._attempt(job.tasks[number], shared.value, job.attempts[number])
            accepted = [job.accept(number, outcome) for outcome in outcomes]
            if not any(accepted):
                waiting.append(number)

    def _attempt(self, task: Task, value: Any, attempt: int) -> list[TaskOutcome]:
        """Return the outcomes of one attempt: none if its node died, two if it ran twice."""
        node = self._random.choice(self._nodes)
        if self._strikes():
            node_cache(node).close()
            return []
        outcome = self._elsewhere(replace(task, node=node), value, attempt)
        if outcome.error is not None or outcome.failure is not None:
            return [outcome]
        if self._strikes():
            node_cache(node).close()
            return []
        if self._strikes():
            again = self._elsewhere(replace(task, node=self._random.choice(self._nodes)), value, attempt)
            return self._random.sample([outcome, again], 2)
        return [outcome]

    def _elsewhere(self, task: Task, value: Any, attempt: int) -> TaskOutcome:
        """Run a task as if in another process."""
        its_task, its_value = pickle.loads(pickle.dumps((task, value)))
        outcome = run_task(its_task, its_value, attempt, lambda: self.options.cancel.cancelled)
        there: TaskOutcome = pickle.loads(pickle.dumps(outcome))
        return there

    def _strikes(self) -> bool:
        return self._random.random() < self._harm

    def _close(self) -> None:
        for node in self._nodes:
            node_cache(node).close()
