-- Boxes whose teacher's licence is on a deny list
-- What would go if these licences were left out. Training leaves them out with the same pattern.
-- $deny = "AGPL*"   pattern of licences, * stands for anything, case does not matter
SELECT
    t.licence,
    b.teacher,
    count(*) AS boxes,
    count(DISTINCT (b.split, b.image_id)) AS images,
    round(count(*) / (SELECT count(*) FROM boxes), 3) AS share_of_store
FROM boxes b
JOIN teachers t ON t.name = b.teacher
WHERE lower(t.licence) GLOB lower($deny)
GROUP BY ALL
ORDER BY boxes DESC, b.teacher;
