"""The RTSeg space: BiSeNetV2 with searched widths and mixed convolution/attention blocks (Li et al., AAAI 2023)."""
