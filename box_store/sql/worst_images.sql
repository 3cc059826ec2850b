-- Images that teachers get wrong most
-- Needs ground truth. wrong: boxes that hit nothing or an object found already; missed: objects not
-- found; both are means over the teachers that saw the image, as is the F1 score. Boxes in crowds
-- are left out. Often the annotations are at fault.
-- $score = 0.3   look at boxes that score at least this
-- $iou   = 0.5   overlap from which a box found an object
-- $top   = 20    how many images, most mistakes first
WITH judged AS (
    SELECT
        teacher, split, image_id,
        count(*) FILTER (outcome = 'hit') AS hits,
        count(*) FILTER (outcome <> 'hit') AS wrong
    FROM matched(NULL, $iou, $score)
    WHERE outcome <> 'crowd'
    GROUP BY ALL
),
objects AS (
    SELECT split, image_id, count(*) AS objects FROM truth WHERE NOT iscrowd GROUP BY ALL
),
each AS (
    SELECT
        split, image_id,
        coalesce(o.objects, 0) AS objects,
        coalesce(j.hits, 0) AS hits,
        coalesce(j.wrong, 0) AS wrong
    FROM runs r
    LEFT JOIN judged j USING (teacher, split, image_id)
    LEFT JOIN objects o USING (split, image_id)
    WHERE r.status = 'ok' AND (split, image_id) IN (SELECT (split, image_id) FROM dataset_images)
)
SELECT
    split, image_id,
    any_value(i.file_name) AS file_name,
    any_value(objects) AS objects,
    count(*) AS teachers,
    round(avg(wrong), 2) AS wrong,
    round(avg(objects - hits), 2) AS missed,
    round(avg(2 * hits / nullif(hits + wrong + objects, 0)), 3) AS f1
FROM each JOIN images i USING (split, image_id)
GROUP BY split, image_id
HAVING avg(wrong + objects - hits) > 0
ORDER BY avg(wrong + objects - hits) DESC, split, image_id
LIMIT $top;
