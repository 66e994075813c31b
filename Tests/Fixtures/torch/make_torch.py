"""Writes the archives that the tests of the reader of PyTorch's files read, and what is in them.

Needs torch and safetensors."""

import collections
import io
import json
import os
import pickle
import zipfile

import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(0)
base = torch.arange(24.0).reshape(4, 6)
tensors = collections.OrderedDict()
tensors["float"] = torch.randn(3, 5)
tensors["bfloat"] = torch.randn(4, 3).bfloat16()
tensors["half"] = torch.cat(
    [torch.randn(5), torch.tensor([0.0, -0.0, 6e-8, 65504, float("inf")])]
).half()
tensors["integer"] = torch.arange(-3, 3).reshape(2, 3)
tensors["transposed"] = base.t()
tensors["rows"] = base[1:3]
tensors["columns"] = base[:, 1:4:2]
tensors["permuted"] = torch.randn(2, 3, 4).permute(2, 0, 1)
tensors["half transposed"] = torch.randn(3, 2).half().t()
tensors["scalar"] = torch.tensor(2.5)
tensors["empty"] = torch.empty(0, 3)
tensors["parameter"] = nn.Parameter(torch.randn(2, 2))
tensors["double"] = torch.randn(2).double()
tensors["expanded"] = torch.ones(1, 3).expand(4, 3)

torch.save(tensors, "mixed.pth")
torch.save(dict(tensors), "protocol4.pth", pickle_protocol=4)
torch.save({"epoch": 3, "lr": 1e-5, "state_dict": tensors, "list": [1, None, 2**40, -5]}, "nested.pth")
torch.save(tensors, "before-1.6.pth", _use_new_zipfile_serialization=False)
readable = {
    name: tensor.detach().float().contiguous() if tensor.dtype == torch.half else tensor.detach().contiguous().clone()
    for name, tensor in tensors.items()
    if name not in ("double", "expanded")
}
save_file(readable, "mixed.safetensors")

projector = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8), nn.GELU(), nn.Linear(8, 8)).bfloat16()
torch.save(projector.state_dict(), "projector.pth")

os.makedirs("sharded", exist_ok=True)
names = list(tensors)
weight_map = {}
for part in (0, 1):
    file = f"pytorch_model-0000{part + 1}-of-00002.bin"
    share = {name: tensors[name] for name in names[part::2]}
    torch.save(share, f"sharded/{file}")
    weight_map.update({name: file for name in share})
with open("sharded/pytorch_model.bin.index.json", "w") as out:
    json.dump({"metadata": {"total_size": 0}, "weight_map": weight_map}, out)


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


torch.save({"weight": torch.ones(2), "command": Command()}, "command.pth")
torch.save({"module": nn.Linear(2, 2)}, "module.pth")


class Huge:
    """A shape whose elements are none, and whose bytes cannot be counted without the 0."""

    def __init__(self, *shape):
        self.shape = shape

    def __reduce__(self):
        storage = torch.ones(1).storage()
        strides = (1,) * len(self.shape)
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.shape, strides, False, {})


torch.save({"weight": Huge(2**62, 0)}, "huge.pth")
torch.save({"weight": Huge(0, 2**62, 4)}, "huge-rows.pth")

with zipfile.ZipFile("mixed.pth") as source, zipfile.ZipFile(
    "compressed.pth", "w", zipfile.ZIP_DEFLATED
) as target:
    for name in source.namelist():
        target.writestr(name, source.read(name))
