"""The client's errors → ours, as a table by the names of Kafka's error codes. Pure; imports no client library.

Rules
- Known by name, because numbers say nothing to a reader. What is not in the table is counted in `unknown_errors` and
  becomes `UnimqError(code="unknown")`, never a guess.
- After the write, what does not say "refused" says nothing: the outcome is unknown.
- `NEVER_STORED` are the refusals: the broker, or the client before it, did not take the message.
"""

from __future__ import annotations

import collections
from typing import Any, Final

from unimq.driver import Op
from unimq.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionFailed,
    InvalidMessage,
    LockLost,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Rejected,
    ResourceExhausted,
    SendOutcomeUnknown,
    SendTimeout,
    UnimqError,
    Unsupported,
)

ADAPTER_NAME: Final = "kafka"
unknown_errors: collections.Counter[str] = collections.Counter()

# class, whether the same call may work later, and the words that come before the client's own
_Row = tuple[type[UnimqError], bool, str]
TABLE: Final[dict[str, _Row]] = {
    # who we are, what we may
    **dict.fromkeys(
        ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "ILLEGAL_SASL_STATE", "UNSUPPORTED_SASL_MECHANISM"),
        (AuthenticationFailed, False, "the broker refused the login"),
    ),
    "TOPIC_AUTHORIZATION_FAILED": (PermissionDenied, False, "a right on the topic is missing (Read, Write, Describe)"),
    "GROUP_AUTHORIZATION_FAILED": (PermissionDenied, False, "the right Read on the consumer group is missing"),
    "CLUSTER_AUTHORIZATION_FAILED": (PermissionDenied, False, "a right on the cluster is missing"),
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": (PermissionDenied, False, "the right on the transactional id is missing"),
    # what is there
    **dict.fromkeys(
        ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"),
        (NotFound, False, "the topic does not exist: mq.declare(...) makes it"),
    ),
    "GROUP_ID_NOT_FOUND": (NotFound, False, "the consumer group does not exist"),
    "TOPIC_EXCEPTION": (Unsupported, False, "Kafka does not accept that topic name"),
    **dict.fromkeys(
        ("INVALID_CONFIG", "INVALID_PARTITIONS", "INVALID_REPLICATION_FACTOR", "_INVALID_ARG", "INVALID_SESSION_TIMEOUT"),
        (Unsupported, False, "an option was not accepted"),
    ),
    **dict.fromkeys(
        ("_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION", "_NOT_IMPLEMENTED", "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
        (Unsupported, False, "this broker lacks it"),
    ),
    "NON_EMPTY_GROUP": (ResourceExhausted, True, "the group has receivers: close them first"),
    # the message
    **dict.fromkeys(
        ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"),
        (MessageTooLarge, False, "the message is larger than the topic takes"),
    ),
    **dict.fromkeys(
        ("INVALID_MSG", "INVALID_RECORD", "INVALID_TIMESTAMP", "POLICY_VIOLATION", "UNSUPPORTED_COMPRESSION_TYPE", "_BAD_MSG"),
        (Rejected, False, "the broker refused it"),
    ),
    # room
    **dict.fromkeys(
        ("_QUEUE_FULL", "NOT_ENOUGH_REPLICAS", "KAFKA_STORAGE_ERROR", "THROTTLING_QUOTA_EXCEEDED", "GROUP_MAX_SIZE_REACHED"),
        (ResourceExhausted, True, "the broker or the client is out of room"),
    ),
    # whose it is
    **dict.fromkeys(
        (
            "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID", "_ASSIGNMENT_LOST",
            "STALE_MEMBER_EPOCH", "FENCED_MEMBER_EPOCH", "_STATE",
        ),
        (LockLost, False, "the partition belongs to another receiver now"),
    ),
    # the line
    **dict.fromkeys(
        (
            "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_SSL", "_FAIL", "_DESTROY", "_TIMED_OUT", "_TIMED_OUT_QUEUE",
            "_WAIT_COORD", "_INTR", "REQUEST_TIMED_OUT", "NETWORK_EXCEPTION", "BROKER_NOT_AVAILABLE", "LEADER_NOT_AVAILABLE",
            "NOT_LEADER_FOR_PARTITION", "REPLICA_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR",
            "COORDINATOR_LOAD_IN_PROGRESS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "_MAX_POLL_EXCEEDED", "NOT_CONTROLLER",
            "UNSTABLE_OFFSET_COMMIT", "_NODE_UPDATE", "_RETRY", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH",
            "OFFSET_NOT_AVAILABLE", "_PREV_IN_PROGRESS",
            # the idempotent producer is spent: a new connection has a new one
            "_FATAL", "_FENCED", "OUT_OF_ORDER_SEQUENCE_NUMBER", "UNKNOWN_PRODUCER_ID", "INVALID_PRODUCER_EPOCH",
            "_GAPLESS_GUARANTEE", "INVALID_PRODUCER_ID_MAPPING",
        ),
        (ConnectionFailed, True, "no answer from the broker"),
    ),
    "_MSG_TIMED_OUT": (SendTimeout, True, "not confirmed within the time"),
    "_PURGE_QUEUE": (Closed, False, "closed before it was sent"),
    "_PURGE_INFLIGHT": (SendOutcomeUnknown, True, "closed before it was confirmed"),
}  # fmt: skip

NEVER_STORED: Final = frozenset(
    name
    for name, (kind, _, _) in TABLE.items()
    if kind in (AuthenticationFailed, PermissionDenied, NotFound, Unsupported, MessageTooLarge, Rejected)
) | {"_QUEUE_FULL", "NOT_ENOUGH_REPLICAS", "_PURGE_QUEUE", "THROTTLING_QUOTA_EXCEEDED"}

# What ends a receiver at once; the rest heals in librdkafka, or is looked at again.
RECEIVER_FATAL: Final = frozenset(
    name for name, (kind, _, _) in TABLE.items() if kind in (PermissionDenied, AuthenticationFailed)
) | {
    "_FATAL",
    "_FENCED",
    "FENCED_INSTANCE_ID",
    "INCONSISTENT_GROUP_PROTOCOL",
    "UNSUPPORTED_VERSION",
    "_UNSUPPORTED_FEATURE",
}


def kafka_error(error: BaseException) -> Any:
    """The KafkaError inside a KafkaException, else None; known by its methods."""
    inner = error.args[0] if error.args else None
    return inner if hasattr(inner, "name") and hasattr(inner, "retriable") else None


def code_of(error: Any) -> str:
    """The name of a KafkaError; of one librdkafka has no name for, its number."""
    return str(error.name())


def classify(error: BaseException, *, op: Op, handed_over: bool) -> UnimqError:
    if isinstance(error, UnimqError):
        return error
    if isinstance(error, BufferError):
        return _make(ResourceExhausted, True, f"the client's queue is full: {error}", error)
    if isinstance(error, TimeoutError):  # an admin request's future
        return _make(
            ConnectionFailed, True, f"no answer from the broker within the time {error}".rstrip(), error
        )
    if isinstance(error, UnicodeError):
        return _make(InvalidMessage, False, f"text that is not UTF-8: {error}", error)
    if isinstance(error, RuntimeError) and "closed" in str(error).lower():
        return _make(Closed, False, str(error), error)  # confluent raises a bare RuntimeError after close
    inner = kafka_error(error)
    if inner is None:
        return _unknown(type(error).__name__, str(error), error, op, handed_over)
    name = code_of(inner)
    row = TABLE.get(name)
    if row is None:
        return _unknown(name, inner.str(), error, op, handed_over)
    kind, retryable, words = row
    text = f"{words}: {inner.str()} ({name})"
    if op is Op.SEND and handed_over and name not in NEVER_STORED:
        return _make(SendOutcomeUnknown, True, f"{text}; it may have been sent", error)
    return _make(kind, retryable, text, error)


def _make(kind: type[UnimqError], retryable: bool, text: str, cause: BaseException) -> UnimqError:
    return kind(text, retryable=retryable, adapter=ADAPTER_NAME, cause=cause)


def _unknown(name: str, text: str, cause: BaseException, op: Op, handed_over: bool) -> UnimqError:
    unknown_errors[name] += 1
    sent = op is Op.SEND and handed_over
    return UnimqError(
        f"an error of Kafka that unimq does not know: {text} ({name})",
        code="unknown",
        may_have_been_sent=sent,
        adapter=ADAPTER_NAME,
        cause=cause,
    )
