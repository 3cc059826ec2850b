-- judged(teacher, score): the boxes that are held against the ground truth: of one teacher (NULL: of
-- every teacher), scoring at least `score`, in images that the annotation file lists.
CREATE MACRO judged(teacher_name, min_score) AS TABLE
SELECT * FROM boxes
WHERE score >= min_score AND (teacher_name IS NULL OR teacher = teacher_name)
  AND (split, image_id) IN (SELECT (split, image_id) FROM dataset_images);

-- on_objects(teacher, iou, score): those of them that overlap an object or a crowd of their class,
-- with their outcome as `matched` has it; all others are misses.
CREATE MACRO on_objects(teacher_name, min_iou, min_score) AS TABLE
WITH boxes_there AS (
    SELECT
        teacher, split, image_id,
        list(struct_pack(rank, score, category_id, x1, y1, x2, y2)) AS boxes
    FROM judged(teacher_name, min_score)
    WHERE (split, image_id, category_id) IN (SELECT (split, image_id, category_id) FROM truth)
    GROUP BY ALL
),
objects_there AS (
    SELECT
        split, image_id,
        list(struct_pack(truth_id, category_id, x1, y1, x2, y2, iscrowd) ORDER BY truth_id)
            AS objects
    FROM truth
    GROUP BY ALL
)
SELECT teacher, split, image_id, unnest(outcomes(boxes, objects, min_iou), recursive := true)
FROM boxes_there JOIN objects_there USING (split, image_id);

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
SELECT f.*, o.truth_id, o.iou, coalesce(o.outcome, 'miss') AS outcome
FROM judged(teacher_name, min_score) f
LEFT JOIN on_objects(teacher_name, min_iou, min_score) o USING (teacher, split, image_id, rank);
