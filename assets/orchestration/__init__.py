"""Jobs, staleness, schedules and the sensor."""
