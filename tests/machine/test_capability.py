"""Which type a device computes in."""

from types import SimpleNamespace

import jax
import pytest

from ftjax.machine.capability import compute_type, device_type


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, "float32"),
        ("tpu", None, "bfloat16"),
        ("gpu", "6.0", "float32"),  # P100
        ("gpu", "7.5", "float32"),  # T4
        ("gpu", "8.0", "bfloat16"),  # A100
        ("gpu", "8.9", "bfloat16"),  # L4
        ("gpu", "9.0", "bfloat16"),  # H100, H200
        ("gpu", "12.0", "bfloat16"),
        ("gpu", "gfx90a", "bfloat16"),  # AMD
        ("cuda", None, "bfloat16"),
    ],
)
def test_bfloat16_is_for_devices_that_have_it(platform, capability, expected):
    assert compute_type(platform, capability) == expected
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    assert device_type(device) == expected


def test_the_cpu_of_these_tests_computes_in_float32():
    assert device_type(jax.devices("cpu")[0]) == "float32"
