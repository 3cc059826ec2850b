-- Score calibration
-- Needs ground truth. In each band of scores: how often a box is right, against how sure it was.
-- A teacher whose precision lies below its mean score is overconfident.
-- $teacher = null   one teacher, null for all
-- $iou     = 0.5    overlap from which a box found an object
-- $bands   = 10     how many bands of scores
SELECT
    teacher,
    round(least(floor(score * $bands), $bands - 1)::DOUBLE / $bands, 3) AS from_score,
    count(*) AS boxes,
    round(avg(score), 3) AS mean_score,
    round(avg((outcome = 'hit')::INT), 3) AS precision
FROM matched($teacher, $iou, 0)
WHERE outcome <> 'crowd'
GROUP BY ALL
ORDER BY teacher, from_score;
