-- intersection over union of two boxes given by their corners; 0 where both have no area
-- CASE, for greatest() and least() take ten times as long
CREATE MACRO overlap_side(alow, ahigh, blow, bhigh) AS
    CASE WHEN ahigh < bhigh THEN ahigh ELSE bhigh END
    - CASE WHEN alow < blow THEN blow ELSE alow END;

CREATE MACRO overlap_area(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2) AS
    CASE
        WHEN overlap_side(ax1, ax2, bx1, bx2) > 0 AND overlap_side(ay1, ay2, by1, by2) > 0
        THEN overlap_side(ax1, ax2, bx1, bx2) * overlap_side(ay1, ay2, by1, by2)
        ELSE 0
    END;

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
