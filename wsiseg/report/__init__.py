"""What maps say for a paper: endpoints with their intervals, quality flags, tables and a page. It knows no network."""
