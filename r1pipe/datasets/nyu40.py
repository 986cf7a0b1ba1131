"""The 40 classes of NYU Depth v2 by the names of ScanNet's label map."""

NYU40 = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter"),
    *(
        "blinds",
        "desk",
        "shelves",
        "curtain",
        "dresser",
        "pillow",
        "mirror",
        "floor mat",
        "clothes",
        "ceiling",
        "books",
    ),
    *("refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand"),
    *("toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop"),
)
"""Class i + 1 has name i."""

STRUCTURE = frozenset({1, 2, 22})
"""Ids of wall, floor and ceiling: annotated as objects, but no benchmark detects them."""
