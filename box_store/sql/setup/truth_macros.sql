-- matched(teacher, iou, score): the boxes of one teacher (NULL: of every teacher) that score at
-- least `score`, each with its outcome against the ground truth of its class:
--   hit        it found the object `truth_id`, overlapping by `iou`
--   crowd      it lies in a region annotated as a crowd, where boxes count neither way
--   duplicate  better boxes of this teacher found all objects that it overlaps so far
--   miss       it overlaps no object of its class by `iou`
-- Only images that the annotation file lists.
-- One to one, by COCO's rule: boxes choose in the order of their scores, each the free object that
-- it overlaps most. `outcomes` is that rule; calibration and evaluation ask the same one.
CREATE MACRO matched(teacher_name, min_iou, min_score) AS TABLE
WITH found AS (
    SELECT * FROM boxes
    WHERE score >= min_score AND (teacher_name IS NULL OR teacher = teacher_name)
      AND (split, image_id) IN (SELECT (split, image_id) FROM dataset_images)
),
boxes_there AS (
    SELECT
        teacher, split, image_id,
        list(struct_pack(rank, category_id, x1, y1, x2, y2) ORDER BY rank) AS boxes
    FROM found
    GROUP BY ALL
),
objects_there AS (
    SELECT
        split, image_id,
        list(struct_pack(truth_id, category_id, x1, y1, x2, y2, iscrowd) ORDER BY truth_id)
            AS objects
    FROM truth
    GROUP BY ALL
),
judged AS (
    SELECT
        teacher, split, image_id,
        unnest(outcomes(boxes, coalesce(objects, []), min_iou), recursive := true)
    FROM boxes_there LEFT JOIN objects_there USING (split, image_id)
)
SELECT f.*, j.truth_id, j.iou, j.outcome
FROM found f JOIN judged j USING (teacher, split, image_id, rank);
