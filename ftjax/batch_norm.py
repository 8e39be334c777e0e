"""The BatchNorm policies."""

BATCH_NORM_POLICIES = ("follow", "frozen", "recalibrate")
BN_POLICIES = ("follow", "frozen", "recalibrate")


def check_policy(policy: str) -> None:
    """Raises ValueError if there is no such BatchNorm policy."""
    if policy not in BATCH_NORM_POLICIES:
        raise ValueError(
            f"unknown BatchNorm policy {policy!r}; --bn takes "
            f"{', '.join(BATCH_NORM_POLICIES)}"
        )
