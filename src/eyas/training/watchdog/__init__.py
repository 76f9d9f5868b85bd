"""Watchdog: a rank that is killed, stopped or hung ends the job.

`watch` is the entry point. `heartbeat` is what a rank publishes, `peers` the ranks as processes, `lookout` the check
once a second, `ranks` the conclusions from it; `report` is for a hang, and `exit` ends the process.
"""
