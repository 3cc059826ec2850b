-- Boxes that several teachers agree on and nobody annotated
-- Needs ground truth. Likely missing labels: of each group of agreeing boxes the best-scoring one.
-- $score    = 0.5   each of the boxes scores at least this
-- $iou      = 0.5   overlap from which two boxes are the same object
-- $teachers = 2     how many teachers must agree
-- $top      = 50    how many boxes, surest first
WITH sure AS (SELECT * FROM boxes WHERE score >= $score),
pairs AS (
    SELECT
        a.teacher, a.split, a.image_id, a.rank,
        b.teacher AS other,
        max(b.score) AS other_score
    FROM sure a JOIN sure b USING (split, image_id, category_id)
    WHERE a.teacher <> b.teacher
      AND iou(a.x1, a.y1, a.x2, a.y2, b.x1, b.y1, b.x2, b.y2) >= $iou
    GROUP BY ALL
),
agreed AS (
    SELECT
        teacher, split, image_id, rank,
        1 + count(*) AS teachers,
        string_agg(other, ', ' ORDER BY other) AS others,
        max((other_score, other)) AS best_other
    FROM pairs
    GROUP BY ALL
    HAVING 1 + count(*) >= $teachers
)
SELECT
    s.split, s.image_id, i.file_name, s.category,
    round(s.score, 3) AS score, s.x1, s.y1, s.x2, s.y2, g.teachers, s.teacher, g.others
FROM sure s
JOIN agreed g USING (teacher, split, image_id, rank)
JOIN images i USING (split, image_id)
WHERE (s.score, s.teacher) > g.best_other
  AND (s.split, s.image_id) IN (SELECT (split, image_id) FROM dataset_images)
  AND NOT EXISTS (
      SELECT 1 FROM truth t
      WHERE t.split = s.split AND t.image_id = s.image_id AND t.category_id = s.category_id
        AND (
            iou(s.x1, s.y1, s.x2, s.y2, t.x1, t.y1, t.x2, t.y2) >= $iou
            OR t.iscrowd
            AND overlap_area(s.x1, s.y1, s.x2, s.y2, t.x1, t.y1, t.x2, t.y2) >= $iou * s.area
        )
  )
ORDER BY s.score DESC, s.split, s.image_id, s.rank
LIMIT $top;
