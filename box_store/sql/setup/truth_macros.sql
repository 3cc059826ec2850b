-- matched(teacher, iou, score): the boxes of one teacher (NULL: of every teacher) that score at
-- least `score`, each with its outcome against the ground truth of its class:
--   hit        it found the object `truth_id`, overlapping by `iou`
--   duplicate  a better box of this teacher found that object already
--   crowd      it lies in a region annotated as a crowd, where boxes count neither way
--   miss       it overlaps no object of its class by `iou`
-- Only images that the annotation file lists.
-- One to one: a box goes to the object it overlaps most, an object to its best-scoring box.
CREATE MACRO matched(teacher_name, min_iou, min_score) AS TABLE
WITH found AS (
    SELECT * FROM boxes
    WHERE score >= min_score AND (teacher_name IS NULL OR teacher = teacher_name)
      AND image_id IN (SELECT image_id FROM dataset_images)
),
pairs AS (
    SELECT
        f.teacher, f.image_id, f.rank, t.truth_id, t.iscrowd,
        CASE
            WHEN t.iscrowd
            THEN overlap_area(f.x1, f.y1, f.x2, f.y2, t.x1, t.y1, t.x2, t.y2) / nullif(f.area, 0)
            ELSE iou(f.x1, f.y1, f.x2, f.y2, t.x1, t.y1, t.x2, t.y2)
        END AS overlap
    FROM found f JOIN truth t USING (image_id, category_id)
),
nearest_object AS (
    SELECT * FROM pairs
    WHERE NOT iscrowd AND overlap >= min_iou
    QUALIFY row_number() OVER (
        PARTITION BY teacher, image_id, rank ORDER BY overlap DESC, truth_id
    ) = 1
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY teacher, truth_id ORDER BY rank) = 1 AS is_best
    FROM nearest_object
),
in_crowd AS (
    SELECT DISTINCT teacher, image_id, rank FROM pairs WHERE iscrowd AND overlap >= min_iou
)
SELECT
    f.*,
    p.truth_id,
    p.overlap AS iou,
    CASE
        WHEN p.is_best THEN 'hit'
        WHEN p.truth_id IS NOT NULL THEN 'duplicate'
        WHEN c.teacher IS NOT NULL THEN 'crowd'
        ELSE 'miss'
    END AS outcome
FROM found f
LEFT JOIN placed p USING (teacher, image_id, rank)
LEFT JOIN in_crowd c USING (teacher, image_id, rank);
