-- Score calibration
-- Needs ground truth. In each band of scores: how often a box is right, against how sure it was.
-- A teacher whose precision lies below its mean score is overconfident.
-- $teacher    = null    one teacher, null for all
-- $iou        = 0.5     overlap from which a box found an object
-- $bands      = 10      how many bands of scores
-- $calibrated = false   judge calibrated scores, of the teachers that have a calibration
WITH seen AS (
    SELECT
        teacher, score, CASE WHEN $calibrated THEN calibrated_score ELSE score END AS sureness,
        count(*) AS boxes
    FROM judged($teacher, 0)
    GROUP BY ALL
),
-- scores are few: what overlaps an object is counted by them, not looked up box by box
found AS (
    SELECT
        teacher, score,
        count(*) FILTER (outcome = 'hit') AS hits,
        count(*) FILTER (outcome = 'crowd') AS crowded
    FROM on_objects($teacher, $iou, 0)
    GROUP BY ALL
),
counted AS (
    SELECT teacher, sureness, boxes - coalesce(crowded, 0) AS boxes, coalesce(hits, 0) AS hits
    FROM seen LEFT JOIN found USING (teacher, score)
)
SELECT
    teacher,
    round(least(floor(sureness * $bands), $bands - 1)::DOUBLE / $bands, 3) AS from_score,
    sum(boxes)::BIGINT AS boxes,
    round(sum(boxes * sureness) / sum(boxes), 3) AS mean_score,
    round(sum(hits) / sum(boxes), 3) AS precision
FROM counted
WHERE sureness IS NOT NULL AND boxes > 0
GROUP BY ALL
ORDER BY teacher, from_score;
