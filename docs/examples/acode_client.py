#!/usr/bin/env python3
"""A client of acode's control protocol in Python, without any package: submits tasks, follows them, collects results.

As a program:

    acode_client.py [--socket PATH] run -- CMD [ARG ..]         runs a command in the pool, shows its output, exits as it did
    acode_client.py [--socket PATH] submit -- CMD [ARG ..]      prints the id of the task
    acode_client.py [--socket PATH] follow ID                   prints events of the task until it has ended

As a module:

    with Pool() as pool:
        ids = pool.submit([{"command": ["sha256sum", path]} for path in paths])
        for task in pool.collect(ids):
            print(task["name"], task["state"], task["result"])

The socket is `control.sock` in the pool's runtime directory: --socket or $ACODE_SOCKET, else where the pool of this user has
it. Written for version 1 of the protocol, which docs/protocol.md describes.
"""

import argparse
import json
import os
import socket
import struct
import sys

PROTOCOL = 1
MESSAGE_MAX = 32 << 20
FINAL = {"task-completed", "task-failed", "task-cancelled", "task-timeout"}
ENDED = {"completed", "failed", "cancelled", "timeout"}
NOT_STARTED = 127
TIMED_OUT = 124


class CallError(Exception):
    """The pool did not do it. `name` is the error's, as in io.acode.QueueFull; `parameters` say more."""

    def __init__(self, name, parameters):
        super().__init__(f"{name}: {json.dumps(parameters)}")
        self.name = name
        self.parameters = parameters


class HungUp(Exception):
    """The pool has gone, or has cut us off."""


class Pool:
    """One connection to a pool. Calls on it are answered in their order."""

    def __init__(self, path=None, timeout=None):
        self.path = path or default_socket()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(self.path)
        self.buffer = bytearray()
        spoken = self.call("Ping").get("protocol", 1)
        if spoken != PROTOCOL:
            raise HungUp(f"the pool speaks version {spoken} of the protocol, and this client {PROTOCOL}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def call(self, method, **parameters):
        """Calls, and gives the one reply."""
        self._send(method, parameters, more=False)
        return self._reply()[0]

    def stream(self, method, **parameters):
        """Calls, and gives replies as they come. Take all of them, or close the connection."""
        self._send(method, parameters, more=True)
        continues = True
        while continues:
            reply, continues = self._reply()
            yield reply

    def submit(self, tasks, **options):
        """Puts tasks into the queue, all or none, and gives their ids. A task is a specification, such as
        {"command": ["ls"]} or {"action": {"type": "computation", "params": {..}}, "isolation": "none"}; `options` are
        those of every submission, such as delayMs or dependencies."""
        entries = [{"spec": task, **options} for task in tasks]
        return self.call("Submit", tasks=entries)["ids"]

    def wait(self, ids):
        """Waits until all have ended; gives how many did how."""
        counts = {}
        for reply in self.stream("Wait", ids=list(ids)):
            counts = reply["counts"]
        return counts

    def collect(self, ids):
        """Gives the records of tasks in their order, each when it has ended."""
        for task in ids:
            self.wait([task])
            yield self.call("Show", id=task)["task"]

    def follow(self, task):
        """Gives the events of one task, which may be named as people do, from its submission to its end: those of them that the
        pool still has. Ends at once if the task has ended."""
        record = self.call("Show", id=task)["task"]
        last, name = 0, None
        # What has been. One that was retried has ended before, so its last event counts.
        while events := self.call("Events", after=last)["events"]:
            for event in events:
                last = event["seq"]
                if event.get("task") == record["id"]:
                    name = event["event"]
                    yield event
        if record["state"] in ENDED or name in FINAL:
            return
        for reply in self.stream("Events", follow=True, after=last):
            for event in reply["events"]:
                if event.get("task") == record["id"]:
                    yield event
                    if event["event"] in FINAL:
                        return

    def output(self, task):
        """The output of a task's last attempt: bytes of standard output, bytes of standard error."""
        places = self.call("Logs", ids=[task])
        out = {0: bytearray(), 1: bytearray()}
        for source in places["sources"][-1:]:
            for stream, data in read_journal(places["directory"], source):
                out.setdefault(stream, bytearray()).extend(data)
        return bytes(out[0]), bytes(out[1])

    def _send(self, method, parameters, more):
        call = {"method": f"io.acode.{method}", "parameters": parameters}
        if more:
            call["more"] = True
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def _reply(self):
        while (end := self.buffer.find(b"\0")) < 0:
            data = self.socket.recv(1 << 16)
            if not data:
                raise HungUp(f"{self.path} hung up")
            self.buffer += data
            if len(self.buffer) > MESSAGE_MAX:
                raise HungUp("a message is too large")
        message = json.loads(self.buffer[:end])
        del self.buffer[: end + 1]
        if "error" in message:
            raise CallError(message["error"], message.get("parameters", {}))
        return message.get("parameters", {}), message.get("continues", False)


def default_socket():
    """Where the pool of this user listens, as the manual says under 'Directories'."""
    if os.environ.get("ACODE_SOCKET"):
        return os.environ["ACODE_SOCKET"]
    if os.environ.get("ACODE_STATE_DIR"):
        return os.path.join(os.environ["ACODE_STATE_DIR"], "run", "control.sock")
    if os.geteuid() == 0:
        return "/run/acode/control.sock"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = os.path.join(runtime, "acode") if runtime else os.path.join(state, "acode", "run")
    return os.path.join(folder, "control.sock")


HEADER = struct.Struct("<4sB3xII16sqQ")
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def read_journal(directory, source):
    """The frames of one attempt's output: pairs of 0 for standard output or 1 for standard error, and bytes. See 'Reading
    output' in docs/protocol.md."""
    number = 0
    for digit in source["task"]:
        number = number * 32 + DIGITS.index(digit)
    task = number.to_bytes(16, "little")
    segment, offset = source["segment"], source["offset"]
    while True:
        try:
            file = open(os.path.join(directory, f"{source['worker']}.{segment}"), "rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            while len(header := file.read(HEADER.size)) == HEADER.size:
                magic, kind, length, attempt, owner, _, _ = HEADER.unpack(header)
                if magic != b"ACJ1":
                    return
                data = file.read(length)
                if len(data) < length:
                    return
                if (owner, attempt) != (task, source["attempt"]):
                    continue
                if kind == 4:
                    return
                if kind in (1, 2):
                    yield kind - 1, data
        segment, offset = segment + 1, 0


def exit_code(task):
    """The exit code that tells of a task's end, as `acode run` gives it."""
    if task["exit_code"] is not None:
        return task["exit_code"]
    if task["signal"] is not None:
        return 128 + task["signal"]
    return {"not-started": NOT_STARTED, "timed-out": TIMED_OUT}.get(task["verdict"], 1)


def main():
    parser = argparse.ArgumentParser(description="Speaks to a pool of acode.")
    parser.add_argument("--socket", help="the pool's control socket")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "submit"):
        commands.add_parser(name).add_argument("task", nargs=argparse.REMAINDER, metavar="CMD")
    commands.add_parser("follow").add_argument("id")
    args = parser.parse_args()
    try:
        with Pool(args.socket) as pool:
            if args.command == "follow":
                for event in pool.follow(args.id):
                    print(json.dumps(event), flush=True)
                return 0
            words = args.task[1:] if args.task[:1] == ["--"] else args.task
            if not words:
                parser.error("name a command")
            ids = pool.submit([{"command": words, "cwd": os.getcwd()}])
            if args.command == "submit":
                print(ids[0])
                return 0
            task = next(pool.collect(ids))
            out, err = pool.output(ids[0])
            sys.stdout.buffer.write(out)
            sys.stderr.buffer.write(err)
            if task["exit_code"] is None and task["signal"] is None:
                sys.stderr.flush()
                why = task["error"] or task["verdict"] or "it did not run"
                print(f"acode_client: {task['name']}: {why}", file=sys.stderr)
            return exit_code(task)
    except (OSError, CallError, HungUp) as error:
        print(f"acode_client: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
