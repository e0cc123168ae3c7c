"""The mathematics of the paper: schedules, process, objective, samplers."""
