"""The forward process `x = alpha x0 + sigma eps`: levels, schedules, objectives, posterior."""
