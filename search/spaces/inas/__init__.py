"""The iNAS space: backbone, transport and decoder searched together (Gu et al., ICCV 2021)."""
