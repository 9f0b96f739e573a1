"""The processes that work on one study: who runs which trial, and what becomes of it when its process dies."""

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

_TOKEN = uuid4().hex[:8]
_SECONDS_TILL_DEAD = 300
# A trial that kills its process every time, out of memory for example, must not be tried for ever.
_MOST_DEATHS = 5
_EXHAUSTED = "exhausted"
# The first trial is put in again for none.
GIVEN = -1


class Trials:
    """Runs the trials of a study until it has enough of them, together with whoever else works on it.

    Parameters
    ----------
    study : optuna.Study
    n_trials : int
    timeout : float or None
        Seconds after which no new trial starts.
    catch : tuple of exception types
        Errors that count as a failed trial.
    mark : str, default=""
        What the sampler goes through; a study that has been through it does not begin again.
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
        self.watch = _Watch()

    def run(self, objective: Callable[[optuna.Trial], Any]) -> None:
        """Run trials until the study has enough of them, whoever else works on it."""
        end = np.inf if self.timeout is None else monotonic() + self.timeout
        with (
            self._stoppable(),
            tqdm(total=self.n_trials, desc="trials", unit="trial", disable=not self.verbose, file=sys.stderr) as bar,
        ):
            while monotonic() < end:
                claims = self.claims()[: self.n_trials]
                finished = [trial.state.is_finished() and not died(trial) for trial in claims]
                bar.update(sum(finished) - bar.n)
                if any([self.put_in_again(trial) for trial in claims]):
                    continue
                if (len(claims) < self.n_trials and not self._is_exhausted()) or any(
                    trial.state == TrialState.WAITING for trial in claims
                ):
                    self._run_trial(objective)
                elif all(finished):
                    return
                else:
                    sleep(0.2)

    def claims(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that count."""
        return claims_of(self.study.get_trials(deepcopy=False))

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let samplers end the search: Optuna's own method raises outside of its own loop."""
        stop = functools.partial(self.study.set_user_attr, _EXHAUSTED, self.mark)
        self.study.__dict__["stop"] = stop
        try:
            yield
        finally:
            del self.study.__dict__["stop"]

    def _is_exhausted(self) -> bool:
        return self.study.user_attrs.get(_EXHAUSTED) == self.mark

    def put_in_again(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial's process is gone; the trial fails, and a failed one gets a successor."""
        if trial.state == TrialState.RUNNING and self.watch.is_dead(trial):
            deaths = trial.user_attrs.get("deaths", 0) + 1
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                note = functools.partial(self.study._storage.set_trial_user_attr, trial._trial_id)
                note("deaths", deaths)
                if deaths >= _MOST_DEATHS:
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
        if trial.number not in [claim.number for claim in self.claims()[: self.n_trials]]:
            # Somebody else was faster. What was asked for cannot be unasked, but it can be marked as never run.
            trial.set_user_attr("given_back", True)
            self._tell(trial.number, state=TrialState.FAIL)
            return
        try:
            with signs_of_life(trial):
                values = objective(trial)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # taken for dead and put in again
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


class _Watch:
    """Tells which running trials have lost their process."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the process is gone, or has given no sign of life for long; clocks are not compared."""
        host, _, rest = trial.user_attrs.get("process", "").partition(":")
        if host == socket.gethostname():
            pid, _, token = rest.partition(":")
            if not (token == _TOKEN if int(pid) == os.getpid() else _exists(int(pid))):
                return True
        sign = trial.user_attrs.get("alive")
        last, since = self.last.get(trial.number, (None, monotonic()))
        self.last[trial.number] = (sign, since if sign == last else monotonic())
        return monotonic() - self.last[trial.number][1] > _SECONDS_TILL_DEAD


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Tell the others now and then that a trial is still being run."""
    done = threading.Event()

    def tell() -> None:
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            n_signs = 0
            while not done.wait(_SECONDS_TILL_DEAD / 10):
                n_signs += 1
                trial.set_user_attr("alive", n_signs)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def claims_of(trials: Iterable[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """The trials that count, in the order in which they were begun.

    One that died leaves its place to the first that was put in again for it. A place once taken stays taken, so that
    every process sees for itself, without a lock, whether a trial is one too many.
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
