-- Nothing reads them: a cancel stands in its delivery, and how often a message was sent is a metric.
ALTER TABLE deliveries DROP COLUMN sends;
ALTER TABLE dispatches DROP COLUMN cancelled_at;
