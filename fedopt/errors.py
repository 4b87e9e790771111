"""What can go wrong on a user's side. Each error is one sentence, and carries the exit status it ends in."""


class FedoptError(Exception):
    """A run that cannot go on; its message is the one sentence the user reads."""

    exit_status = 1


class InvalidExperiment(FedoptError):
    """The experiment, or the command line around it, asks for something that does not exist."""

    exit_status = 2


class DataUnavailable(InvalidExperiment):
    """The data are not where the experiment says, or not what it says."""


class PartitionImpossible(InvalidExperiment):
    """No partition of the asked-for kind gives every client enough samples."""


class BrokenRun(FedoptError):
    """A run directory that is torn, edited or taken; nothing of it has been loaded."""


class NotStored(FedoptError):
    """Files cannot be written: their disk is full, or their folder is gone."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        """The message without what to do next."""


class RunStopped(FedoptError):
    """A run ended itself because going on would have spoilt the model."""


class Diverged(RunStopped):
    """Its numbers ran away: what the experiment asked for does not learn."""


class StopRun(Exception):
    """Raised by an observer in `round_done` to end the run after that round: the summary is written as usual.

    >>> def patience(record):
    ...     if record.test_accuracy is not None and record.test_accuracy > 0.9:
    ...         raise StopRun
    """
