-- What each teacher was shown, and what went wrong
-- Images by teacher and status, with the time they took and one example of each error.
SELECT
    teacher,
    status,
    count(*) AS images,
    sum(n_boxes)::BIGINT AS boxes,
    round(sum(seconds), 2) AS seconds,
    any_value(nullif(error, '')) AS example_error
FROM runs
GROUP BY ALL
ORDER BY teacher, images DESC, status;
