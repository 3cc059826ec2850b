-- How often teachers agree
-- Of the boxes of a teacher, in images that the other one saw too: how many have a box of the same
-- class and place from that other teacher. Not symmetric: who says little is agreed with more.
-- $score = 0.3   look at boxes that score at least this
-- $iou   = 0.5   overlap from which two boxes are the same object
WITH sure AS (SELECT teacher, split, image_id, category_id, rank, x1, y1, x2, y2 FROM boxes WHERE score >= $score),
seen AS (SELECT teacher, split, image_id FROM runs WHERE status = 'ok'),
partnered AS (
    SELECT DISTINCT a.teacher, a.split, a.image_id, a.rank, b.teacher AS other
    FROM sure a JOIN sure b USING (split, image_id, category_id)
    WHERE a.teacher <> b.teacher
      AND iou(a.x1, a.y1, a.x2, a.y2, b.x1, b.y1, b.x2, b.y2) >= $iou
)
SELECT
    s.teacher,
    o.teacher AS other,
    count(*) AS boxes,
    count(p.rank) AS agreed,
    round(count(p.rank) / count(*), 3) AS share
FROM sure s
JOIN seen o ON o.split = s.split AND o.image_id = s.image_id AND o.teacher <> s.teacher
LEFT JOIN partnered p
    ON (s.teacher, s.split, s.image_id, s.rank, o.teacher)
    = (p.teacher, p.split, p.image_id, p.rank, p.other)
GROUP BY ALL
ORDER BY s.teacher, other;
