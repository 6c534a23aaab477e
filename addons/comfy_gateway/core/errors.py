"""The exception tree. A class exists only where a caller acts differently on it.

* GatewayError
  - CloudError
    . CloudUnauthorized     the key is refused: nothing will work until a person acts
    . CapacityRefused       no such machine now: try the next candidate
    . CloudRefused          a definite no, and nothing was made: do not repeat the same request
    . CloudUnavailable      no answer, or one that says nothing: the outcome is unknown, never "none"
  - StoreError
    . StoreUnavailable      the database does not answer
    . StaleRecord           somebody else saved the record meanwhile: discard and look again
  - AgentUnavailable        no usable sample; a missing sample is not idleness
  - PodFilesUnavailable     a pod gave no usable answer to a question for its files
  - BackendUnavailable      a ComfyUI server gave no usable answer: what it knows is unknown, not nothing
  - AlarmUnsent             an alarm reached nobody: try again
  - StorageUnavailable      a file of ours cannot be written or read: the disk is full or broken
  - AccountsUnreadable      the file of people who sign in by tokens is wrong; of ``core.people.accounts``
  - PromptRefused           a prompt cannot be sent as it is; the refusal is for the client
  - IllegalTransition       an event that the session's state does not know; nothing was changed
"""

from comfy_gateway.core.requests.refusals import Refusal


class GatewayError(Exception):
    """Everything that this gateway raises on purpose. The text never holds a secret."""


class CloudError(GatewayError):
    """The cloud did not do what was asked."""


class CloudUnauthorized(CloudError):
    """The API key is missing, wrong or without rights."""


class CapacityRefused(CloudError):
    """The wanted machine is not to be had at this moment; nothing was made."""


class CloudRefused(CloudError):
    """The request itself was refused; nothing was made, and repeating it will not help."""


class CloudUnavailable(CloudError):
    """Late, broken or meaningless answer. After a create this means: the pod may exist."""


class StoreError(GatewayError):
    """The state could not be read or written."""


class StoreUnavailable(StoreError):
    """The database does not answer."""


class StaleRecord(StoreError):
    """The record was saved by somebody else since it was read."""


class AgentUnavailable(GatewayError):
    """The pod's agent gave no usable sample."""


class PodFilesUnavailable(GatewayError):
    """Late, broken or meaningless answer about a file of a pod."""


class BackendUnavailable(GatewayError):
    """A ComfyUI server gave no usable answer to a question of ours."""


class AlarmUnsent(GatewayError):
    """An alarm was not handed over. The text holds no address."""


class StorageUnavailable(GatewayError):
    """The gateway's own disk does not take or give a file. The text says why, without a path."""


class PromptRefused(GatewayError):
    """A prompt that is not sent on."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class IllegalTransition(GatewayError):
    """An event that the state machine does not allow in this state."""
