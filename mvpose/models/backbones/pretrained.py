"""Loading of pretrained weights into our backbone and head, by their public names.

Three layouts are read, from .safetensors or from a .pth file that contains only tensors:

    conv1.weight, layer1.0. ..., fc.*                  torchvision's ResNet; the classifier is ignored
    conv1.weight, ..., deconv_layers.*, final_layer.*  pose_resnet of Simple Baselines (Xiao et al. 2018), bare, under
                                                       `module.`, or as the `state_dict` of a checkpoint
    [...]backbone.*, [...]head.*, ...                  a network saved by mvpose; everything else in it is ignored

In every layout, each part in the file must fit exactly: a missing, additional or misshapen tensor is an error that
names it.
"""

from __future__ import annotations

import os
import pickle
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mvpose.errors import WeightsError
from mvpose.models.backbones.simple_baselines import HeatmapHead, ResNet
from mvpose.models.network_settings import PIXEL_DEVIATION, PIXEL_MEAN
from mvpose.skeleton import Skeleton

HEAD_NAMES = ("deconv_layers.", "final_layer.")
NAMES_SHOWN = 5


def load_pretrained(
    backbone: ResNet,
    head: HeatmapHead | None,
    path: str,
    joints: Skeleton,
    trained_joints: Skeleton | None = None,
    colours: Literal["rgb", "bgr"] = "rgb",
) -> None:
    """Load the backbone, and the `head` if there is one and the file at the local `path` has it; else it is unchanged.

    The head's maps are of `joints`; the file's are of `trained_joints`, None for the same. Maps of joints that the file
    lacks are unchanged. `colours` is the channel order of the images that the file was trained on. WeightsError
    names the mismatch.
    """
    state = _plain_names(read_state_dict(path))
    ours = {name: tensor for name, tensor in state.items() if not name.startswith((*HEAD_NAMES, "fc."))}
    maps = {name: tensor for name, tensor in state.items() if name.startswith(HEAD_NAMES)} if head else {}
    if head and maps and trained_joints is not None:
        maps = _of_joints(maps, trained_joints, joints, head, path)
    misfits = _misfits(backbone, ours) + (_misfits(head, maps) if head and maps else [])
    if misfits:
        raise WeightsError(f"{path} does not fit {_described(backbone, head, joints)}: {'; '.join(misfits)}.")
    backbone.load_state_dict(_for_rgb(ours) if colours == "bgr" else ours)
    if head and maps:
        head.load_state_dict(maps)


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read named tensors of a local .safetensors file, or of a .pth file: a flat dictionary, or its `state_dict`.

    Pickled code is never run. WeightsError if the file is missing or has another content.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"no weights at {path}: name a .safetensors or .pth file")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} is not plain tensors ({error}); save the state dict as .safetensors") from error
    state = found["state_dict"] if isinstance(found, dict) and isinstance(found.get("state_dict"), dict) else found
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a flat dictionary of tensors; save only the network's state_dict()")
    return dict(state)


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers; for a whole multi-view network, only its backbone and head."""
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    whole = [name.removesuffix("backbone.conv1.weight") for name in state if name.endswith("backbone.conv1.weight")]
    if not whole:
        return state
    parts = tuple(f"{whole[0]}{part}." for part in ("backbone", "head"))
    return {
        name.removeprefix(part): tensor for name, tensor in state.items() for part in parts if name.startswith(part)
    }


def _of_joints(
    maps: dict[str, Tensor], source: Skeleton, joints: Skeleton, head: HeatmapHead, path: str
) -> dict[str, Tensor]:
    """The last layer's rows in the order of `joints`; joints that `source` lacks keep the head's rows."""
    places, found = (torch.from_numpy(values) for values in source.remap(joints))
    out = dict(maps)
    for name, own in head.final_layer.state_dict().items():
        rows = maps.get(f"final_layer.{name}")
        if rows is None or rows.shape[1:] != own.shape[1:]:
            continue
        if len(rows) != len(source.joints):
            raise WeightsError(f"{path} has maps of {len(rows)} joints; {source.name} has {len(source.joints)}.")
        out[f"final_layer.{name}"] = torch.where(found.reshape(-1, *[1] * (own.ndim - 1)), rows[places], own)
    return out


def _for_rgb(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a backbone trained on BGR images, normalised by the constants in RGB order, to our RGB input.

    With n the normalised channels, m and d the constants, its k-th input is n[2 - k] d[2 - k] / d[k] plus the constant
    (m[2 - k] - m[k]) / d[k]: a factor of the first convolution's weights, and a shift of its output, which the
    following batch norm subtracts. Exact except for the outermost pixels, where the convolution is padded with zeros.
    """
    weight = state["conv1.weight"]
    mean, deviation = (weight.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_DEVIATION))
    shift = (weight * (mean.flip(0) - mean) / deviation).sum(dim=(1, 2, 3))
    turned = (weight * deviation.flip(0) / deviation).flip(1)
    return {**state, "conv1.weight": turned, "bn1.running_mean": state["bn1.running_mean"] - shift}


def _misfits(module: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Descriptions of all mismatches between a module and these tensors; empty if they fit."""
    own = module.state_dict()
    # Written since PyTorch 0.4.1; older files lack it, and nothing reads it at a fixed momentum.
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    found = {
        "missing in the file": [name for name in own if name in needed - state.keys()],
        "not in the network": [name for name in state if name not in own],
        "with another shape": shapes,
    }
    return [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _described(backbone: ResNet, head: HeatmapHead | None, joints: Skeleton) -> str:
    if head is None:
        return f"ResNet-{backbone.depth} (method.backbone.depth)"
    return (
        f"ResNet-{backbone.depth} (method.backbone.depth) with deconvolutions of {head.width} channels and maps of the "
        f"{head.final_layer.out_channels} joints of {joints.name} (set method.backbone.joints if the file has others)"
    )
