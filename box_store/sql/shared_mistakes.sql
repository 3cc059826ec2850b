-- Mistakes that another teacher makes too
-- Needs ground truth. Boxes that find no object, though their teacher is sure, and how many of them
-- another teacher has as well. Where most are shared, objects are probably not annotated: the
-- teachers are better than their AP says, and calibration makes their scores too low.
-- $score = 0.5   look at boxes that score at least this
-- $iou   = 0.5   overlap from which a box found an object, and from which two boxes are the same
WITH wrong AS (
    SELECT teacher, split, image_id, category_id, rank, x1, y1, x2, y2
    FROM matched(NULL, $iou, $score)
    WHERE outcome = 'miss'
),
shared AS (
    SELECT DISTINCT a.teacher, a.split, a.image_id, a.rank
    FROM wrong a JOIN wrong b USING (split, image_id, category_id)
    WHERE a.teacher <> b.teacher
      AND iou(a.x1, a.y1, a.x2, a.y2, b.x1, b.y1, b.x2, b.y2) >= $iou
)
SELECT
    w.teacher,
    count(*) AS mistakes,
    count(s.rank) AS shared,
    round(count(s.rank) / count(*), 3) AS share
FROM wrong w LEFT JOIN shared s USING (teacher, split, image_id, rank)
GROUP BY ALL
ORDER BY w.teacher;
