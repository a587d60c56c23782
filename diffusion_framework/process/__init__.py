"""The forward process `x = alpha x0 + sigma eps`: levels of noise, schedules, objectives and the posterior."""
