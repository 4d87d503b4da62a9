DROP TABLE schedule_totals;
DROP TABLE schedules;
