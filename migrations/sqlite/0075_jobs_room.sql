-- Texts have no bound of their own here.
SELECT 1;
