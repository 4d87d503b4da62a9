DROP TABLE __context_index;
DROP TABLE contexts;
