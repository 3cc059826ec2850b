-- How a teacher's scores are spread
-- Boxes in each band of scores. A teacher that was cut at a floor has no boxes below it.
-- $bands = 20   how many bands of scores
SELECT
    teacher,
    round(least(floor(score * $bands), $bands - 1)::DOUBLE / $bands, 3) AS from_score,
    count(*) AS boxes
FROM boxes
GROUP BY ALL
ORDER BY teacher, from_score;
