"""NVIDIA's own: frames to the device and back while it computes, and the networks by Winograd.

    transfers   frames to the device and back while it computes
    kernels     3x3 convolutions by Winograd's F(4x4, 3x3), in Triton
    layers      one convolution: its packed weights and its launch
    buffers     feature maps in preallocated memory
    fused       both networks as sequences of such launches, in 16-bit floats
    runtime     the fused network, compared with torch's modules first

Only `transfers` is imported unless REGEN_FUSED_KERNELS is set: the others are experiments that no GPU has run. Triton
comes with torch's CUDA builds; its interpreter runs the kernel on a CPU, where tests compare it with torch.
"""
