#!/usr/bin/env python3
"""A worker program for acode: Python, with nothing but the standard library.

    acode task submit --type custom --action sum --params '{"numbers": [1, 2, 3]}' --program 'python3 /path/to/worker.py'

It is started once for each worker and does one task after another. `docs/protocol.md`, section 'Worker programs', says what
passes over its standard input and output. Put functions of your own into ACTIONS; `Task` is all that they need to know.
"""

import json
import os
import queue
import sys
import threading
import time

# Standard output belongs to the protocol. What anybody prints goes to standard error, and so to the task's output.
_voice = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
os.dup2(2, 1)
_lock = threading.Lock()


def say(**message):
    """Sends one message, whole."""
    with _lock:
        _voice.write(json.dumps(message) + "\n")
        _voice.flush()


class Cancelled(Exception):
    """The task is to end."""


class Task:
    """One attempt: `payload` is what is to be done; `name`, `meta`, `scratch`, `cwd`, `checkpoint` are beside it."""

    def __init__(self, message):
        self.__dict__.update(message)
        self.why = None

    def progress(self, percent, message=""):
        say(type="progress", id=self.id, percent=percent, message=message)

    def log(self, text, stream="stdout"):
        say(type="log", id=self.id, text=text + "\n", stream=stream)

    def check(self):
        """To be called now and then: ends a task that is to end."""
        if self.why is not None:
            raise Cancelled(f"told to end ({self.why})")


def sum_up(task):
    """Adds numbers."""
    total = 0
    numbers = task.payload["numbers"]
    for done, number in enumerate(numbers, 1):
        task.check()
        total += number
        task.progress(100 * done / len(numbers), f"{done} of {len(numbers)}")
    task.log(f"added {len(numbers)} numbers")
    return {"sum": total, "pid": os.getpid()}


def sleep(task):
    """Sleeps, and can be woken."""
    end = time.monotonic() + task.payload["seconds"]
    while time.monotonic() < end:
        task.check()
        time.sleep(0.02)
    return None


def note(task):
    """Writes a file into the task's private directory, and says where that was."""
    path = os.path.join(task.scratch, "note.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write(task.payload["text"])
    return {"path": path, "bytes": os.path.getsize(path)}


ACTIONS = {"sum": sum_up, "sleep": sleep, "note": note}


def listen(tasks, running):
    """Hears what the worker says, also while a task runs."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["type"] == "task":
            task = Task(message)
            running[task.id] = task
            tasks.put(task)
        elif message["type"] == "cancel" and message["id"] in running:
            running[message["id"]].why = message["why"]
        elif message["type"] == "shutdown":
            break
    for task in list(running.values()):
        task.why = "shutdown"
    tasks.put(None)


def main():
    tasks, running = queue.Queue(), {}
    threading.Thread(target=listen, args=(tasks, running), daemon=True).start()
    say(type="ready")
    while (task := tasks.get()) is not None:
        try:
            action = ACTIONS.get(task.name)
            if action is None:
                raise LookupError(f"there is no action '{task.name}' here: there are {', '.join(ACTIONS)}")
            answer = {"type": "result", "payload": action(task)}
        except Exception as error:  # Whatever goes wrong in a task is the task's; the program lives on.
            answer = {"type": "error", "error": f"{type(error).__name__}: {error}"}
        running.pop(task.id)
        say(id=task.id, **answer)


if __name__ == "__main__":
    main()
