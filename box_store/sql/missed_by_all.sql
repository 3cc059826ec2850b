-- Objects of the ground truth that no teacher found
-- Needs ground truth. Only images that at least one teacher saw; crowds are left out.
-- $score = 0.3    a box counts from this score
-- $iou   = 0.5    overlap from which a box of the same class found the object
-- $top   = 50     how many objects, largest first
SELECT t.split, t.image_id, i.file_name, t.category, t.x1, t.y1, t.x2, t.y2, round(t.area) AS area
FROM truth t
JOIN images i USING (split, image_id)
WHERE NOT t.iscrowd
  AND (t.split, t.image_id) IN (SELECT (split, image_id) FROM runs WHERE status = 'ok')
  AND NOT EXISTS (
      SELECT 1 FROM boxes b
      WHERE b.split = t.split AND b.image_id = t.image_id AND b.category_id = t.category_id AND b.score >= $score
        AND iou(b.x1, b.y1, b.x2, b.y2, t.x1, t.y1, t.x2, t.y2) >= $iou
  )
ORDER BY t.area DESC, t.split, t.image_id
LIMIT $top;
