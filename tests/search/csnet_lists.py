"""The authors' learned channel lists: figures to verify counts against, no product default."""

from search.spaces.csnet.arch import CSNetArch

X1_L = CSNetArch(
    stem=(8, 10),
    stage1=((9, 10), (10, 10), (10, 10)),
    stage2=((19, 13), (19, 17), (20, 12), (34,)),
    stage3=((24, 21), (26, 27), (22, 18), (19, 18), (23, 18), (38,)),
    stage4=((18, 29), (25, 24), (26, 20), (50,)),
    csf_mid=(12, 24, 24),
    dilated=((1, 2, 2, 2, 4), (1, 4, 4, 4, 5), (2, 2, 4, 5, 4)),
    csf_out=60,
)
X2_L = CSNetArch(
    stem=(13, 10),
    stage1=((13, 12), (18, 11), (18, 12)),
    stage2=((28, 21), (34, 22), (31, 29), (51,)),
    stage3=((23, 26), (27, 26), (25, 20), (17, 21), (19, 25), (38,)),
    stage4=((18, 31), (31, 27), (26, 44), (64,)),
    csf_mid=(17, 38, 32),
    dilated=((2, 1, 2, 2, 1), (0, 6, 6, 7, 5), (0, 1, 3, 7, 7)),
    csf_out=79,
)
