-- Boxes per teacher and class
-- How many boxes each teacher has of each class, in how many images, and how sure it is.
-- $score = 0.05   count boxes that score at least this
SELECT
    teacher,
    category,
    count(*) AS boxes,
    count(DISTINCT (split, image_id)) AS images,
    round(avg(score), 3) AS mean_score,
    round(median(sqrt(area)), 1) AS median_side_px
FROM boxes
WHERE score >= $score
GROUP BY ALL
ORDER BY teacher, boxes DESC, category;
