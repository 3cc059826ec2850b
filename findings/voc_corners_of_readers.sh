#!/bin/sh
# Pascal VOC counts the first pixel as 1 and the last one as part of the box (VOC2012 development
# kit). Of three readers of the same file two take it for 0.
#
# One object that covers the columns 1 to 50 and the rows 1 to 40 of an image of 100 x 80 pixels: in
# continuous coordinates x 0 to 50, y 0 to 40. Seen:
#   datumaro 1.13.12     x, y, width, height = 1, 1, 49, 39     corners taken as they stand
#   fiftyone 1.22.1      0.01, 0.0125, 0.49, 0.4875 of the image: the same box
#   supervision 0.31.2   corners 0, 0, 50, 40                   as VOC means them
# The first two cut a pixel off on the left and above; whoever trains on one and compares with another
# measures the difference. None says so. FiftyOne's importer runs without its database here. Needs
# about 1.5 GB of downloads; fails when what is said here is no longer so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if [ -n "${PYTHON:-}" ]; then python=$PYTHON; else
    python3 -m venv venv
    python=$work/venv/bin/python
    "$python" -m pip -q install datumaro==1.13.12 fiftyone==1.22.1 supervision==0.31.2
fi
FIFTYONE_DO_NOT_TRACK=true "$python" -W ignore - <<'EOF'
from pathlib import Path

import datumaro
import fiftyone.utils.voc as fiftyone_voc
import supervision
from PIL import Image

for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
    Path("set", folder).mkdir(parents=True)
Image.new("RGB", (100, 80)).save("set/JPEGImages/a.jpg")
Path("set/ImageSets/Main/train.txt").write_text("a\n")
Path("set/labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:::\ndog:::\n")
Path("set/Annotations/a.xml").write_text("""<annotation><folder>JPEGImages</folder>
<filename>a.jpg</filename><size><width>100</width><height>80</height><depth>3</depth></size>
<segmented>0</segmented><object><name>dog</name><pose>Unspecified</pose><truncated>0</truncated>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>40</ymax></bndbox>
</object></annotation>""")

(item,) = datumaro.Dataset.import_from("set", "voc_detection")
(box,) = item.annotations
print("datumaro", datumaro.__version__, box.get_bbox())
assert [float(value) for value in box.get_bbox()] == [1, 1, 49, 39]

importer = fiftyone_voc.VOCDetectionDatasetImporter(
    data_path="set/JPEGImages", labels_path="set/Annotations"
)
with importer:
    ((_, _, label),) = list(importer)
(box,) = label.detections
print("fiftyone", [round(value, 4) for value in box.bounding_box])
assert [round(value, 4) for value in box.bounding_box] == [0.01, 0.0125, 0.49, 0.4875]

found = supervision.DetectionDataset.from_pascal_voc("set/JPEGImages", "set/Annotations")
((_, _, box),) = list(found)
print("supervision", supervision.__version__, box.xyxy.tolist())
assert box.xyxy.tolist() == [[0, 0, 50, 40]]
print("as described")
EOF
