"""The ranks of a job watch each other: one that is killed, stopped or hung ends it, with a report of where all stood.

`watch` is the way in. `heartbeat` is what a rank tells of itself, `peers` how it reaches the others, `lookout` one look
a second at all of them, `sightings` what follows from it; `roll_call`, `stacks` and `hang_report` are for a hang, and
`leaving` ends the process.
"""
