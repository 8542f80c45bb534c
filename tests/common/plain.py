"""A worker program for tests that has one thread, and reads its standard input byte by byte: what it has not read lies there."""

import array
import fcntl
import json
import os
import sys
import termios
import time


def say(**message):
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


def hear():
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit()
        line += byte
    return json.loads(line)


def unread():
    count = array.array("i", [0])
    fcntl.ioctl(0, termios.FIONREAD, count)
    return count[0]


def note(path):
    with open(path, "a") as file:
        file.write("x\n")


say(type="ready")
while (task := hear())["type"] == "task":
    payload, answer = task["payload"], {"type": "result", "id": task["id"], "payload": os.getpid()}
    what = payload["do"]
    if what == "close":
        os.close(0)
        time.sleep(300)
    say(**answer)
    if what == "close-idle":
        os.close(0)
        note(payload["mark"])
        time.sleep(300)
    elif what in ("close-late", "again-late"):
        # The next task is there, and nothing of it is read.
        while unread() == 0:
            time.sleep(0.001)
        if what == "close-late":
            os.close(0)
        else:
            say(**answer)
        time.sleep(300)
