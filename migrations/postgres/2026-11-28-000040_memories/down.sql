DROP TABLE __memory_index;
DROP TABLE memory_totals;
DROP TABLE memories;
