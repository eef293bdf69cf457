"""Runs in the environment of `scripts/original`: the package's own RealESRGANer on pictures in a .npy file.

    python enhance.py WEIGHTS.pth BLOCKS PRE_PAD PICTURES.npy RESULTS.npy

BLOCKS is the number of RRDBNet's blocks, 0 for the compact network. Pictures are N x H x W x 3, 16-bit, BGR.
"""

import sys

import numpy as np
from basicsr.archs.rrdbnet_arch import RRDBNet
from realesrgan import RealESRGANer
from realesrgan.archs.srvgg_arch import SRVGGNetCompact

_, weights, blocks, pre_pad, pictures, results = sys.argv
if int(blocks):
    network = RRDBNet(3, 3, num_feat=64, num_block=int(blocks), num_grow_ch=32, scale=4)
else:
    network = SRVGGNetCompact(3, 3, num_feat=64, num_conv=16, upscale=4, act_type="prelu")
upsampler = RealESRGANer(scale=4, model_path=weights, model=network, tile=0, pre_pad=int(pre_pad), half=False)
np.save(results, np.stack([upsampler.enhance(picture)[0] for picture in np.load(pictures)]))
