"""Faster ways than torch's modules to run the networks on an NVIDIA GPU, in 16-bit floats.

    kernels     a fused 3x3 convolution, in Triton
    layers      one convolution: its packed weights, its launches and their autotuning
    buffers     feature maps in preallocated memory
    fused       both networks as sequences of such launches
    graphs      a network for one input shape, captured as a CUDA graph
    candidates  the ways to run a network that are worth trying
    trial       tries the candidates in a process of its own, which may crash or hang
    choice      compares the candidates with torch's modules and chooses the fastest right one
    timing      time on the device
    runtime     the network that the upscaler calls
    transfers   frames to the device and back while it computes

Other precisions run as torch's modules. Without a CUDA device only `transfers` is imported. Triton comes with torch's
CUDA builds; without it only the CUDA graph of torch's modules is left.
"""
