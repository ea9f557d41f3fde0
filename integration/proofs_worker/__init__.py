"""Proofs of the worker on brokers in processes of their own: ours (`unimq broker`) and a real RabbitMQ.

    make proofs-worker                             # in full; a RabbitMQ by UNIMQ_RABBITMQ_URL, in a container or native
    make proofs-worker ARGS='-k loss'              # one of them; UNIMQ_LOSS_SEEDS=3 for fewer seeds
    UNIMQ_SHORT=1 make proofs-worker               # the short form, as in the integration lane

The loss proof has a part that knows nothing of unimq (`account.py`: raw pika) and counts what became of every message.
"""
