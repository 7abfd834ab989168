"""The operations of the networks by oneDNN: CPU, channels last, float32 or bfloat16.

Paddle's own CPU convolutions unfold the images and multiply matrices sample by sample. oneDNN,
which Paddle ships but uses in static graphs only, is several times faster. Here it is called from
dynamic graphs, one differentiable operation at a time.

Between `enter` and `mean`, activations are tensors ``[N, H, W, C]``. Parameters stay where they are
and as they are, ``[O, I, H, W]`` in float32: checkpoints, optimizers and `paddle.Model` see nothing
of the backend.

Layers that oneDNN's operations do not cover are handed to Paddle: `resnet_fit.backends.covered`.
"""
