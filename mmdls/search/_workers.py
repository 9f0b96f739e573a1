"""Several processes that work on one study: which trials each runs, and how trials of dead processes are run again."""

import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import numpy as np
import optuna
from optuna.trial import TrialState
from tqdm.auto import tqdm

from mmdls._files import process_exists

_TOKEN = uuid4().hex[:8]
# Seconds without a heartbeat after which a trial's process counts as dead.
HEARTBEAT_TIMEOUT = 300
# A trial that ends its process every time, for example out of memory, must not be repeated for ever.
_MAX_DEATHS = 5
_EXHAUSTED = "exhausted"
# Value of "again" for the first trial, which repeats no other trial.
GIVEN = -1


class Trials:
    """Runs trials until the study has ``n_trials``, together with other processes that work on the same study.

    Parameters
    ----------
    study : optuna.Study
    n_trials : int
    timeout : float or None
        Seconds after which no new trial starts.
    catch : tuple of exception types
        Errors that count as a failed trial.
    mark : str, default=""
        Identifies the sampler's set of points; a study whose set is exhausted runs no further trials.
    verbose : int
        1 shows a progress bar.
    """

    def __init__(
        self,
        study: optuna.Study,
        n_trials: int,
        timeout: float | None = None,
        catch: tuple[type[Exception], ...] = (),
        mark: str = "",
        verbose: int = 0,
    ):
        self.study = study
        self.n_trials = n_trials
        self.timeout = timeout
        self.catch = catch
        self.mark = mark
        self.verbose = verbose
        self.liveness = _Liveness()

    def run(self, objective: Callable[[optuna.Trial], Any]) -> None:
        """Run trials until the study has ``n_trials`` finished ones."""
        end = np.inf if self.timeout is None else monotonic() + self.timeout
        with (
            self._stoppable(),
            tqdm(total=self.n_trials, desc="trials", unit="trial", disable=not self.verbose, file=sys.stderr) as bar,
        ):
            while monotonic() < end:
                active = self._active_trials()[: self.n_trials]
                finished = [trial.state.is_finished() and not died(trial) for trial in active]
                bar.update(sum(finished) - bar.n)
                if any([self._requeue(trial) for trial in active]):
                    continue
                if (len(active) < self.n_trials and not self._is_exhausted()) or any(
                    trial.state == TrialState.WAITING for trial in active
                ):
                    self._run_trial(objective)
                elif all(finished):
                    return
                else:
                    sleep(0.2)

    def _active_trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that count towards ``n_trials``."""
        return active_trials(self.study.get_trials(deepcopy=False))

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let samplers end the search: Optuna's own ``Study.stop`` raises outside of ``Study.optimize``."""
        stop = functools.partial(self.study.set_user_attr, _EXHAUSTED, self.mark)
        self.study.__dict__["stop"] = stop
        try:
            yield
        finally:
            del self.study.__dict__["stop"]

    def _is_exhausted(self) -> bool:
        return self.study.user_attrs.get(_EXHAUSTED) == self.mark

    def _requeue(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Fail a trial whose process is dead, and enqueue a failed one again; True if either was done."""
        if trial.state == TrialState.RUNNING and self.liveness.is_dead(trial):
            deaths = trial.user_attrs.get("deaths", 0) + 1
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                note = functools.partial(self.study._storage.set_trial_user_attr, trial._trial_id)
                note("deaths", deaths)
                if deaths >= _MAX_DEATHS:
                    note("error", f"its process died {deaths} times")
            self._tell(trial.number, state=TrialState.FAIL)
            return True
        if died(trial):
            known = trial.system_attrs.get("fixed_params", {}) | trial.params
            attributes = {"again": trial.number, "deaths": trial.user_attrs.get("deaths", 0)}
            self.study.enqueue_trial(known, user_attrs=attributes)
            return True
        return False

    def _run_trial(self, objective: Callable[[optuna.Trial], Any]) -> None:
        trial = self.study.ask()
        trial.set_user_attr("process", _process())
        if trial.number not in [other.number for other in self._active_trials()[: self.n_trials]]:
            # Another process was faster. Optuna cannot delete a trial, so this one is marked as never run.
            trial.set_user_attr("given_back", True)
            self._tell(trial.number, state=TrialState.FAIL)
            return
        try:
            with _heartbeat(trial):
                values = objective(trial)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # another process counted this one as dead and has enqueued the trial again
        except optuna.TrialPruned:
            self._tell(trial.number, state=TrialState.PRUNED)
        except self.catch:
            self._tell(trial.number, state=TrialState.FAIL)
        except BaseException:
            self._tell(trial.number, state=TrialState.FAIL)
            raise
        else:
            undefined = np.isnan(values).any()
            self._tell(trial.number, None if undefined else values, TrialState.FAIL if undefined else None)

    def _tell(self, number: int, values: Any = None, state: TrialState | None = None) -> None:
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.study.tell(number, values, state, skip_if_finished=True)


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_TOKEN}"


class _Liveness:
    """Finds running trials whose process is dead."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the process has ended or sent no heartbeat for too long, by this process's own clock."""
        host, _, rest = trial.user_attrs.get("process", "").partition(":")
        if host == socket.gethostname():
            pid, _, token = rest.partition(":")
            if not (token == _TOKEN if int(pid) == os.getpid() else process_exists(int(pid))):
                return True
        beat = trial.user_attrs.get("heartbeat")
        last, since = self.last.get(trial.number, (None, monotonic()))
        self.last[trial.number] = (beat, since if beat == last else monotonic())
        return monotonic() - self.last[trial.number][1] > HEARTBEAT_TIMEOUT


@contextmanager
def _heartbeat(trial: optuna.Trial) -> Iterator[None]:
    """Write a heartbeat into a running trial at regular intervals, for the other processes to read."""
    done = threading.Event()

    def beat() -> None:
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            n_beats = 0
            while not done.wait(HEARTBEAT_TIMEOUT / 10):
                n_beats += 1
                trial.set_user_attr("heartbeat", n_beats)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def active_trials(trials: Iterable[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """The trials that count towards the number of trials, in the order in which they were started.

    A trial whose process died is replaced by the first trial that repeats it, in the same place. The places of earlier
    trials never change, so every process can see without a lock whether a trial is beyond the number wanted.
    """
    places: dict[int, optuna.trial.FrozenTrial] = {}
    place_of: dict[int | None, int] = {}
    replaced = set()
    for trial in trials:
        before = trial.user_attrs.get("again")
        if trial.user_attrs.get("given_back") or before in replaced:
            continue
        if before is not None:
            replaced.add(before)
        place_of[trial.number] = place_of.get(before, trial.number)
        places[place_of[trial.number]] = trial
    return list(places.values())


def died(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial ended without a result and without an error of its own."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs
