"""A narrow RTMDet for the demo's scenes in mmdet's own configuration language: 1.2 M parameters.

The layout is RTMDet-tiny's at half its width, without a pretrained backbone.
"""

num_classes = 8
metainfo = {"classes": ("car", "boat", "house", "tree", "balloon", "fish", "rocket", "duck")}
width = 0.1875
channels = 48

model = {
    "type": "RTMDet",
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        "mean": [103.53, 116.28, 123.675],
        "std": [57.375, 57.12, 58.395],
        "bgr_to_rgb": False,
        "pad_size_divisor": 32,
    },
    "backbone": {
        "type": "CSPNeXt",
        "arch": "P5",
        "deepen_factor": 0.167,
        "widen_factor": width,
        "channel_attention": True,
        "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "SiLU", "inplace": True},
    },
    "neck": {
        "type": "CSPNeXtPAFPN",
        "in_channels": [channels, 2 * channels, 4 * channels],
        "out_channels": channels,
        "num_csp_blocks": 1,
        "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "SiLU", "inplace": True},
    },
    "bbox_head": {
        "type": "RTMDetSepBNHead",
        "num_classes": num_classes,
        "in_channels": channels,
        "feat_channels": channels,
        "stacked_convs": 2,
        "exp_on_reg": False,
        "share_conv": True,
        "pred_kernel_size": 1,
        "anchor_generator": {"type": "MlvlPointGenerator", "offset": 0, "strides": [8, 16, 32]},
        "bbox_coder": {"type": "DistancePointBBoxCoder"},
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
        "with_objectness": False,
        "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "SiLU", "inplace": True},
    },
    "train_cfg": {
        "assigner": {"type": "DynamicSoftLabelAssigner", "topk": 13},
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    },
    "test_cfg": {
        "nms_pre": 1000,
        "min_bbox_size": 0,
        "score_thr": 0.01,
        "nms": {"type": "nms", "iou_threshold": 0.6},
        "max_per_img": 100,
    },
}

test_pipeline = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (192, 192), "keep_ratio": True},
    {
        "type": "PackDetInputs",
        "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    },
]
test_dataloader = {
    "dataset": {"type": "CocoDataset", "metainfo": metainfo, "pipeline": test_pipeline}
}
default_scope = "mmdet"
