"""A worker program for tests: each task's `do` says what it does, right or wrong."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

lock = threading.Lock()
told = queue.Queue()
tasks = queue.Queue()


def raw(text):
    with lock:
        data = text.encode()
        while data:
            data = data[os.write(1, data) :]


def say(**message):
    raw(json.dumps(message) + "\n")


def listen():
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["type"] == "task":
            while not told.empty():
                told.get()
            tasks.put(message)
        elif message["type"] == "shutdown":
            if "FAREWELL" in os.environ:
                note(os.environ["FAREWELL"], "shutdown")
            break
        else:
            told.put(message)
    told.put({"type": "shutdown"})
    tasks.put(None)


def note(path, text):
    with open(path, "a") as file:
        file.write(f"{text}\n")


def sleeper(**options):
    return subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)


def do(task):
    payload, ident, scratch = task["payload"], task["id"], task["scratch"]
    what = payload["do"]
    result = {"pid": os.getpid()}
    if what == "tell":
        told_of = {key: value for key, value in task.items() if key != "payload"}
        result |= {"told": told_of, "environment": {k: v for k, v in os.environ.items() if k.startswith("ACODE") or k == "KIND"}}
    elif what == "speak":
        say(type="log", id=ident, text=payload["out"])
        say(type="log", id=ident, text=payload["err"], stream="stderr")
        sys.stderr.write(payload["raw"])
        sys.stderr.flush()
        say(type="progress", id=ident, percent=50, message="half")
        with open(os.path.join(scratch, payload["file"]), "w") as file:
            file.write("x")
    elif what == "list":
        result["files"] = os.listdir(scratch)
    elif what == "write":
        with open(os.path.join(scratch, payload["name"]), "w") as file:
            file.write("x")
        result["files"] = os.listdir(scratch)
    elif what == "fail":
        return say(type="error", id=ident, error=payload["words"], **({"code": payload["code"]} if "code" in payload else {}))
    elif what == "big":
        result["text"] = "x" * 70_000
    elif what == "die":
        sys.stderr.write(payload["words"] + "\n")
        sys.stderr.flush()
        if "signal" in payload:
            os.kill(os.getpid(), payload["signal"])
        os._exit(payload["code"])
    elif what == "die-once":
        if not os.path.exists(payload["mark"]):
            note(payload["mark"], "x")
            os._exit(5)
    elif what == "once":
        note(payload["mark"], os.getpid())
        if task["attempt"] == 1:
            time.sleep(300)
    elif what == "leave":
        say(type="result", id=ident, payload=result)
        os._exit(0)
    elif what == "talk-later":
        def later():
            time.sleep(0.05)
            raw("hello\n")
            note(payload["mark"], "x")
        threading.Thread(target=later).start()
    elif what == "say":
        raw(payload["text"])
        time.sleep(300)
    elif what == "twice":
        line = json.dumps({"type": "result", "id": ident, "payload": 1}) + "\n"
        return raw(line + line)
    elif what == "burst":
        log = json.dumps({"type": "log", "id": ident, "text": "x"}) + "\n"
        end = json.dumps({"type": "result", "id": ident, "payload": result}) + "\n"
        text = log * (payload["lines"] - 1) + end
        # White space between two lines of JSON would be a line; within one it means nothing.
        return raw(text[:-1] + " " * max(payload.get("bytes", 0) - len(text), 0) + "\n")
    elif what == "flood":
        raw("x" * 2_000_000 + ("\n" if payload["newline"] else ""))
        time.sleep(300)
    elif what == "heed":
        message = told.get()
        if message["type"] == "warn":
            result["left"] = message["left"]
        else:
            return say(type="error", id=ident, error=f"told: {message['why']}")
    elif what == "ignore":
        note(payload["pids"], sleeper().pid)
        note(payload["pids"], sleeper(start_new_session=True).pid)
        time.sleep(300)
    elif what == "measure":
        result["length"] = len(payload["text"])
    elif what == "close":
        os.close(1)
        time.sleep(300)
    elif what == "half-a-line":
        raw('{"type":"resu')
        told.get()
        return raw(f'lt","id":"{ident}"}}\n')
    elif what == "orphan":
        script = 'sleep 300 </dev/null >/dev/null 2>&1 & echo $! >>"$1"'
        subprocess.run(["sh", "-c", script, "sh", payload["pids"]], check=True)
    elif what == "noisy":
        subprocess.Popen(["yes"], stdin=subprocess.DEVNULL, stdout=2)
    elif what == "helper":
        result["helper"] = sleeper(stderr=subprocess.DEVNULL).pid
    elif what == "tick":
        while told.empty():
            note(payload["file"], "x")
            time.sleep(0.01)
    elif what == "burn":
        end = time.process_time() + payload["ms"] / 1000
        while time.process_time() < end:
            pass
    elif what == "stay":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ["STAY"] = "yes"
    say(type="result", id=ident, payload=result)


threading.Thread(target=listen, daemon=True).start()
say(type="ready")
while (task := tasks.get()) is not None:
    do(task)
if "STAY" in os.environ:
    time.sleep(300)
