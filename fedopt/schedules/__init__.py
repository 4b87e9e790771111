"""Learning-rate schedules by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

SCHEDULES = Registry(
    "schedule",
    {"constant": Entry("fedopt.schedules.constant:Constant", "the rate local.lr at every step of every round")},
    base="fedopt.schedules.base:Schedule",
)
