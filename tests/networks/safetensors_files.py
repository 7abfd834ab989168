"""Files of the safetensors format, as its specification has them."""

import json

import numpy as np

TYPES = {
    **{f"float{bits}": f"F{bits}" for bits in (64, 32, 16)},
    **{f"int{bits}": f"I{bits}" for bits in (64, 32, 16, 8)},
    **{f"uint{bits}": f"U{bits}" for bits in (64, 32, 16, 8)},
    "bool": "BOOL",
}


def write_safetensors(file, tensors, metadata=None):
    header = {"__metadata__": metadata} if metadata else {}
    content = b""
    for name, tensor in tensors.items():
        raw = np.asarray(tensor).tobytes()
        header[name] = {
            "dtype": TYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [len(content), len(content) + len(raw)],
        }
        content += raw
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content)
