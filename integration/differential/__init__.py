"""Differential programs: the same random program through pika on two brokers, and the first thing that differs.

    python -m integration.differential --seeds 1..100 --steps 30

Rules
- One side is a real RabbitMQ, the other the reference broker. `--against real` runs the real one twice: the control, which
  must show no difference, or this comparison would show more than it should.
- A program follows from its seed alone. Its operations are `operations.OPERATIONS`; each run counts them.
- Normalised is what cannot be the same: names of the run, names and tags made by a server, the time in x-death.
- A difference counts when it shows again with more patience; then it is minimised and printed with its replay command.

Rooms: `operations` the list and the programs, `executor` runs one over pika, `difference` compares and minimises, `sides`
where the brokers come from, `bugs` faults put into ours to see that they are found.
"""
