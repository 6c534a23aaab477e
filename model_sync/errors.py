"""What may go wrong, by what the caller does about it.

SyncError
├── BadManifest        the manifest cannot be used at all          exit code 2
├── BadSetting         an argument or a token file is wrong        exit code 2
├── UnsafePath         a name that would leave the base folder     exit code 2 in a manifest, else the file fails
├── DiskFull           nothing more can be written                 exit code 3
├── LostClaim          another process took this file over         the file is looked at again
└── SourceError        about one mirror of one file
    ├── Passing        may pass: the same mirror is asked again
    │   └── Doubtful   contradicts what is known: asked again, then from the start, then given up
    ├── TooSlow        answers, but hardly: the other mirrors first
    └── Useless        this mirror does not have the file: the next one
"""

import errno

# EFBIG: the file system, or a limit of this process, does not take a file of that size.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SyncError(Exception):
    """The message is one line for people, without secrets and without query strings."""


class BadManifest(SyncError):
    """`faults` holds one line for each thing that is wrong."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class BadSetting(SyncError):
    pass


class UnsafePath(SyncError):
    pass


class DiskFull(SyncError):
    pass


class LostClaim(SyncError):
    pass


class SourceError(SyncError):
    pass


class Passing(SourceError):
    """`retry_after_s` is what the server asked for, or None."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Doubtful(Passing):
    pass


class TooSlow(SourceError):
    pass


class Useless(SourceError):
    pass


def is_full(error: OSError) -> bool:
    return error.errno in FULL
