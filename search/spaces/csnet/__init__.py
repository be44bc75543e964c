"""CSNet: an extremely light saliency network of gOctConv and ILBlocks (Gao et al., ECCV 2020)."""
