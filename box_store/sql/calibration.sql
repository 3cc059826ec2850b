-- Score calibration
-- Needs ground truth. In each band of scores: how often a box is right, against how sure it was.
-- A teacher whose precision lies below its mean score is overconfident.
-- $teacher    = null    one teacher, null for all
-- $iou        = 0.5     overlap from which a box found an object
-- $bands      = 10      how many bands of scores
-- $calibrated = false   judge calibrated scores, of the teachers that have a calibration
WITH judged AS (
    SELECT
        teacher, outcome, CASE WHEN $calibrated THEN calibrated_score ELSE score END AS sureness
    FROM matched($teacher, $iou, 0)
    WHERE outcome <> 'crowd'
)
SELECT
    teacher,
    round(least(floor(sureness * $bands), $bands - 1)::DOUBLE / $bands, 3) AS from_score,
    count(*) AS boxes,
    round(avg(sureness), 3) AS mean_score,
    round(avg((outcome = 'hit')::INT), 3) AS precision
FROM judged
WHERE sureness IS NOT NULL
GROUP BY ALL
ORDER BY teacher, from_score;
