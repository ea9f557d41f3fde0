"""RabbitMQ over AMQP 0-9-1, with pika. Schemes `amqp://` and `amqps://`; `pip install 'unimq[rabbitmq]'`.

What each promise becomes here is in `capabilities.py`, which name is whose in `names.py`.
"""

from .adapter import RabbitMQAdapter

ADAPTER = RabbitMQAdapter()

__all__ = ["ADAPTER", "RabbitMQAdapter"]
