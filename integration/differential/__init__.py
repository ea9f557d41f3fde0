"""Differential programs: the same random program through pika on two brokers, and the first thing that differs.

    python -m integration.differential --seeds 1..520 --steps 30 --min-per-operation 50 --jobs 4
    python -m integration.differential --every-bug --seeds 1..200

Rules
- One side is a real RabbitMQ, the other the reference broker. `--against real` runs the real one twice: the control, which
  must show no difference, or this comparison would show more than it should.
- A program follows from its seed alone. Its operations are `operations.OPERATIONS`; a run says in how many programs each of
  `coverage.LISTED` was.
- Normalised is what cannot be the same: names of the run, names and tags made by a server, the time in x-death.
- What only the timing of a broker decides, a program does not ask: see the rules of `making`, `messages`, `acts`, `executor`.
- A difference counts when it shows again with more patience; then it is minimised and printed with its replay command.

Rooms: `making` names and what a program knows, `topology` and `messages` how operations are made, `operations` their list and
the programs, `coverage` what is in them, `executor` runs one over pika by its `acts`, `writing` writes down what is seen,
`difference` compares and minimises, `sides` where the brokers come from, `bugs` faults put into ours to see that they are found.
"""
