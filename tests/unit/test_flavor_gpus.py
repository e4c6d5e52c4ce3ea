"""GPUs in the extra specs of a flavor."""

from __future__ import annotations

import pytest

from meter.flavor_gpus import BadExtraSpec
from meter.flavor_gpus import FlavorGpuOptions
from meter.flavor_gpus import FlavorGpus
from meter.flavor_gpus import flavor_gpus


@pytest.mark.parametrize(
    ("extra_specs", "expected"),
    [
        ({}, FlavorGpus()),
        ({"pci_passthrough:alias": "gpu:2"}, FlavorGpus(gpus=2)),
        ({"pci_passthrough:alias": "nic:1, GPU-a100:1,gpu:2"}, FlavorGpus(gpus=3)),
        ({"pci_passthrough:alias": "nvidia-vgpu:1"}, FlavorGpus(vgpus=1)),
        ({"resources:VGPU": "1"}, FlavorGpus(vgpus=1)),
        ({"resources1:VGPU": "1", "resources2:VGPU": "2", "resources_GPU-B:VGPU": "1"}, FlavorGpus(vgpus=4)),
        ({"resources:PGPU": "2", "resources:VGPU": "0", "resources:VCPU": "8"}, FlavorGpus(gpus=2)),
        (
            {"trait1:CUSTOM_NVIDIA_11": "required", "hw:pci_numa_affinity_policy": "preferred", "hw:cpu_policy": "x"},
            FlavorGpus(),
        ),
        ({"resources0:VGPU": "1", "myresources:VGPU": "1", "resources:VGPU:x": "1"}, FlavorGpus()),
        ({"accel:device_profile": "gpu"}, FlavorGpus()),
    ],
)
def test_extra_specs_ask_for_gpus(extra_specs: dict[str, str], expected: FlavorGpus) -> None:
    assert flavor_gpus(extra_specs, FlavorGpuOptions()) == expected


def test_names_of_the_operator_count_when_options_name_them() -> None:
    specs = {"pci_passthrough:alias": "a100:2,mig:1", "resources:CUSTOM_NVIDIA_11": "1"}
    assert flavor_gpus(specs, FlavorGpuOptions()) == FlavorGpus()
    options = FlavorGpuOptions(
        gpu_aliases=("A1*",), vgpu_aliases=("mig",), vgpu_resource_classes=("VGPU", "CUSTOM_NVIDIA_*")
    )
    assert flavor_gpus(specs, options) == FlavorGpus(gpus=2, vgpus=2)


@pytest.mark.parametrize("count", ["", "two", "-1", "1.5", "99999", "١"])
def test_count_that_is_not_a_whole_number_is_an_error_that_names_it(count: str) -> None:
    with pytest.raises(BadExtraSpec, match="ask for gpu"):
        flavor_gpus({"pci_passthrough:alias": f"gpu:{count}"}, FlavorGpuOptions())
    with pytest.raises(BadExtraSpec, match="ask for VGPU"):
        flavor_gpus({"resources:VGPU": count}, FlavorGpuOptions())
    assert flavor_gpus({"pci_passthrough:alias": f"nic:{count}"}, FlavorGpuOptions()) == FlavorGpus()
