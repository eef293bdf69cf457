"""What runs the networks faster on a GPU than torch's modules, and the choice of what is right and fastest.

    kernels     a 3x3 convolution with all that stands around it, in Triton
    layers      one convolution's packed weights, its launches, and how they are tuned
    buffers     feature maps in memory that is allocated once
    planned     both networks as sequences of such launches
    candidates  the ways to run a network that are worth trying
    graphs      a network for one shape of input, as one CUDA graph
    trial       everything above tried in a process of its own, which may crash or hang
    choice      which of several ways to run a network is right, and the fastest of those
    timing      how long the device takes
    runtime     the network that the upscaler calls
    transfers   frames to the device and back while it computes

All of it is about 16-bit floats; other precisions stay with torch's modules. Without a CUDA device only `transfers` is
loaded. Triton comes with torch where torch has CUDA; where it is missing only the CUDA graph is left.
"""
