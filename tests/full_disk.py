"""A disk that is full, as the system itself says it, in the middle of a file."""

import multiprocessing
import os
import resource
import signal


def with_a_full_disk(work, n_bytes=400):
    """Do the work in a process whose files may have so many bytes; what it returns, or its error as text."""
    receiver, sender = multiprocessing.Pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, -1))
        try:
            sender.send(work())
        except BaseException as error:
            sender.send(repr(error))
        os._exit(0)
    found = receiver.recv() if receiver.poll(60) else "nothing was sent"
    os.wait()
    return found
