-- Images where teachers disagree
-- A box is alone if no other teacher that saw the image has one of the same class overlapping it.
-- Images with the largest share of lonely boxes come first.
-- $score = 0.3    look at boxes that score at least this
-- $iou   = 0.5    overlap from which two boxes are the same object
-- $top   = 20     how many images
WITH sure AS (SELECT * FROM boxes WHERE score >= $score),
seen AS (
    SELECT split, image_id FROM runs
    WHERE status = 'ok' GROUP BY split, image_id HAVING count(*) >= 2
),
partnered AS (
    SELECT DISTINCT a.teacher, a.split, a.image_id, a.rank
    FROM sure a JOIN sure b USING (split, image_id, category_id)
    WHERE a.teacher <> b.teacher
      AND iou(a.x1, a.y1, a.x2, a.y2, b.x1, b.y1, b.x2, b.y2) >= $iou
)
SELECT
    s.split, s.image_id,
    any_value(i.file_name) AS file_name,
    count(*) AS boxes,
    count(*) FILTER (p.rank IS NULL) AS alone,
    round(count(*) FILTER (p.rank IS NULL) / count(*), 3) AS share_alone,
    string_agg(DISTINCT s.category, ', ' ORDER BY s.category) FILTER (p.rank IS NULL) AS classes
FROM sure s
JOIN seen USING (split, image_id)
JOIN images i USING (split, image_id)
LEFT JOIN partnered p
    ON (s.teacher, s.split, s.image_id, s.rank) = (p.teacher, p.split, p.image_id, p.rank)
GROUP BY s.split, s.image_id
HAVING alone > 0
ORDER BY alone * share_alone DESC, s.split, s.image_id
LIMIT $top;
