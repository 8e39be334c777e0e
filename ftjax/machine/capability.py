"""What a device can do, by its platform and kind alone."""

from ftjax.machine.devices import Device

BFLOAT16_SINCE = 8, 0  # compute capability of NVIDIA's Ampere; a T4 has 7.5


def compute_type(platform: str, capability: str | None = None) -> str:
    """The type that a network computes in, `float32` or `bfloat16`.

    Where the hardware has no bfloat16, XLA computes in float32 and converts around each
    operation, which takes longer than float32 alone. A TPU, and a GPU that gives no
    compute capability (AMD's since 2020), have it.

    Args:
        platform: as JAX calls it.
        capability: of an NVIDIA GPU, as `7.5`; other makers' names count as none.
    """
    if platform == "cpu":
        return "float32"
    major, _, minor = (capability or "").partition(".")
    if major.isdecimal() and minor.isdecimal():
        known = int(major), int(minor)
        return "bfloat16" if known >= BFLOAT16_SINCE else "float32"
    return "bfloat16"


def device_type(device: Device) -> str:
    """`compute_type` of a device."""
    return compute_type(device.platform, getattr(device, "compute_capability", None))
