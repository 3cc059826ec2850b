"""Backbones of golden sets, official name -> ours."""

BACKBONES = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "swin_T_224_1k": "swin_tiny_patch4_window7_224",
    "swin_B_384_22k": "swin_base_patch4_window12_384",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_large": "swin_large_patch4_window7_224",
    "swin_L_384_22k": "swin_large_patch4_window12_384",
    "swin_nano": "swin_nano_patch4_window7_224",
    "tiny": "deit_tiny_patch16_224",
    "small": "deit_small_patch16_224",
}
