-- intersection over union of two boxes given by their corners; 0 where both have no area
CREATE MACRO overlap_area(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2) AS
    greatest(0, least(ax2, bx2) - greatest(ax1, bx1))
    * greatest(0, least(ay2, by2) - greatest(ay1, by1));

CREATE MACRO iou(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2) AS
    coalesce(
        overlap_area(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2)
        / nullif(
            (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
            - overlap_area(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2),
            0
        ),
        0
    );
