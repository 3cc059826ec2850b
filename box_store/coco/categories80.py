"""The 80 categories of COCO's detection task, whose ids have gaps."""

from box_store.categories import Categories, Category

# names in the order of their ids, 1 to 90
_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
# ids of things that were never annotated
_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})

COCO_CATEGORIES = Categories(
    tuple(
        Category(key, " ".join(name.split()), None)
        for key, name in zip(
            (key for key in range(1, 91) if key not in _GAPS), _NAMES.split(","), strict=True
        )
    )
)
