"""The BatchNorm policies: what each is called, how it looks, and what it does.

A new policy is a row here, and the code that makes it behave differently. The order of
the table is that of tables, legends and sentences.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How the BatchNorm layers of the unfrozen part are treated.

    Attributes:
        name: as `--bn` takes it and results.csv has it.
        help: what it does, in a few words.
        meaning: the same in a sentence's part, for the report.
        phrase: in a sentence about a curve.
        color: of its curves.
        dark_color: on a dark page.
        marker: of Matplotlib.
        trains_on_batch_statistics: whether trained BatchNorms use and update batch
            statistics; else all are in inference mode.
        recalibrates: whether running statistics are estimated anew before evaluation.
    """

    name: str
    help: str
    meaning: str
    phrase: str
    color: str
    dark_color: str
    marker: str
    trains_on_batch_statistics: bool
    recalibrates: bool = False

    @property
    def may_lag(self) -> bool:
        """Whether evaluation uses running averages that may lag behind the weights."""
        return self.trains_on_batch_statistics and not self.recalibrates


FOLLOW = Policy(
    "follow",
    help="as Keras: trainable means batch statistics",
    meaning="unfrozen BatchNorm layers use and update batch statistics, frozen ones "
    "their running statistics, as in Keras",
    phrase="with BatchNorm following the unfreezing",
    color="#c04f00",
    dark_color="#ff9a4d",
    marker="o",
    trains_on_batch_statistics=True,
)
FROZEN = Policy(
    "frozen",
    help="all in inference mode",
    meaning="all of them use running statistics that never change",
    phrase="with BatchNorm held in inference mode",
    color="#0072b2",
    dark_color="#5bb8ee",
    marker="s",
    trains_on_batch_statistics=False,
)
RECALIBRATE = Policy(
    "recalibrate",
    help="as follow, then statistics estimated anew",
    meaning="trained as follow, then the running statistics are estimated anew over "
    "the training images (Wu and Johnson, “Rethinking ‘Batch’ in BatchNorm”, "
    "arXiv:2105.07576)",
    phrase="with BatchNorm statistics re-estimated after training",
    color="#007a59",
    dark_color="#3ccf9e",
    marker="^",
    trains_on_batch_statistics=True,
    recalibrates=True,
)
POLICIES = {policy.name: policy for policy in (FOLLOW, FROZEN, RECALIBRATE)}
DEFAULT = FOLLOW.name  # of a table of results that does not say: what Keras does


def find_policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in POLICIES:
        raise ValueError(
            f"unknown BatchNorm policy {name!r}; --bn takes {', '.join(POLICIES)}"
        )
    return POLICIES[name]


def describe_policies() -> str:
    """Names and what they do, for the help of `--bn`."""
    each = (f"{policy.name} ({policy.help})" for policy in POLICIES.values())
    return f"BatchNorm policies: {', '.join(each)}."
