-- A teacher's errors, by kind
-- Needs ground truth. hit; duplicate (the object was found already); class (overlaps an object of
-- another class); place (right class, overlap below $iou but at least 0.1); background (nothing
-- there); missed (objects it did not find). Boxes in crowds are left out.
-- $teacher = null   one teacher, null for all
-- $iou     = 0.5    overlap from which a box found an object
-- $score   = 0.3    look at boxes that score at least this
WITH judged AS (SELECT * FROM matched($teacher, $iou, $score) WHERE outcome <> 'crowd'),
misses AS (
    SELECT
        j.teacher, j.split, j.image_id, j.rank,
        max(iou(j.x1, j.y1, j.x2, j.y2, t.x1, t.y1, t.x2, t.y2))
            FILTER (t.category_id = j.category_id) AS same_class,
        max(iou(j.x1, j.y1, j.x2, j.y2, t.x1, t.y1, t.x2, t.y2))
            FILTER (t.category_id <> j.category_id) AS other_class
    FROM judged j JOIN truth t USING (split, image_id)
    WHERE j.outcome = 'miss' AND NOT t.iscrowd
    GROUP BY ALL
),
kinds AS (
    SELECT
        j.teacher,
        CASE
            WHEN j.outcome <> 'miss' THEN j.outcome
            WHEN m.other_class >= $iou THEN 'class'
            WHEN m.same_class >= 0.1 THEN 'place'
            ELSE 'background'
        END AS kind,
        j.score
    FROM judged j LEFT JOIN misses m USING (teacher, split, image_id, rank)
),
missed AS (
    SELECT r.teacher, 'missed' AS kind, NULL AS score
    FROM truth t
    JOIN runs r USING (split, image_id)
    WHERE r.status = 'ok' AND NOT t.iscrowd AND ($teacher IS NULL OR r.teacher = $teacher)
      AND NOT EXISTS (
          SELECT 1 FROM judged j
          WHERE j.teacher = r.teacher AND j.truth_id = t.truth_id AND j.outcome = 'hit'
      )
)
SELECT
    teacher,
    kind,
    count(*) AS n,
    round(count(*) / sum(count(*)) OVER (PARTITION BY teacher), 3) AS share,
    round(avg(score), 3) AS mean_score
FROM (FROM kinds UNION ALL FROM missed)
GROUP BY teacher, kind
ORDER BY teacher, n DESC, kind;
