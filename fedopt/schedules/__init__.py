"""Learning-rate schedules by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

SCHEDULES = Registry(
    "schedule",
    {
        "constant": Entry("fedopt.schedules.constant:Constant", "the same rate at every step of every round"),
        "step": Entry("fedopt.schedules.step:Step", "lr gamma^⌊t / step_size⌋, as torch's StepLR"),
        "multi-step": Entry("fedopt.schedules.multi_step:MultiStep", "lr gamma^(milestones passed), as MultiStepLR"),
        "exponential": Entry("fedopt.schedules.exponential:Exponential", "lr gamma^t, as ExponentialLR"),
        "cosine": Entry(
            "fedopt.schedules.cosine:Cosine",
            "lr (1 + cos(π t / horizon)) / 2, as CosineAnnealingLR",
            "Loshchilov, Hutter, ICLR 2017 (arXiv:1608.03983)",
        ),
        "polynomial": Entry("fedopt.schedules.polynomial:Polynomial", "lr (1 − t / horizon)^power, as PolynomialLR"),
        "inverse-time": Entry("fedopt.schedules.inverse_time:InverseTime", "lr / (1 + decay_rate t)"),
        "plateau": Entry(
            "fedopt.schedules.plateau:Plateau", "lr gamma^(plateaus of the test loss), as ReduceLROnPlateau"
        ),
    },
    base="fedopt.schedules.base:Schedule",
)
