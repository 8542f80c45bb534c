"""Drives a pool with PyPI's `varlink` package, which nobody here wrote: the proof that the protocol is Varlink.

Usage: python varlink_client.py SOCKET      exits with 0 if everything was as it should be.

The package reads the interface from the pool and checks every parameter and every reply against it, so each call that
succeeds here also proves a part of `io.acode.varlink`.
"""

import sys

import varlink


def check(condition, what):
    if not condition:
        sys.exit(f"varlink_client: {what}")


def main(socket):
    with varlink.Client(address=f"unix:{socket}") as client:
        with client.open("org.varlink.service") as service:
            info = service.GetInfo()
            check(info["product"] == "acode", f"unexpected info {info}")
            check("io.acode" in info["interfaces"], f"io.acode is missing in {info}")
            text = service.GetInterfaceDescription("io.acode")["description"]
            check("method Submit(" in text, "the description has no Submit")
            try:
                service.GetInterfaceDescription("com.example.nothing")
                check(False, "an unknown interface was described")
            except varlink.InterfaceNotFound:
                pass

        with client.open("io.acode") as pool:
            check(pool.Ping()["pid"] > 0, "no ping")
            task = {"spec": {"command": ["/bin/sh", "-c", "exit 3"], "name": "python", "meta": {"k": "v"}}}
            good = {"spec": {"command": ["/bin/true"], "priority": "high"}}
            ids = pool.Submit(tasks=[task, good])["ids"]
            check(len(ids) == 2 and all(len(i) == 26 for i in ids), f"unexpected ids {ids}")

            replies = list(pool.Wait(_more=True, ids=ids))
            check(replies, "Wait with more gave nothing")
            counts = replies[-1]["counts"]
            ended = counts["completed"] + counts["failed"]
            check(ended == 2, f"not all ended: {counts}")

            shown = pool.Show(id=ids[0])["task"]
            check(shown["id"] == ids[0] and shown["name"] == "python", f"unexpected task {shown}")
            check((shown["state"], shown["exit_code"]) == ("failed", 3), f"unexpected end {shown}")
            check(shown["meta"] == {"k": "v"} and len(shown["attempts"]) == 1, f"unexpected task {shown}")
            by_number = pool.Show(id=str(shown["number"]))["task"]
            check(by_number["id"] == ids[0], "the number names another task")

            check(pool.Resolve(ids=[ids[1].lower()])["ids"] == [ids[1]], "an id in lower case is not found")
            check(len(pool.List(limit=1)["tasks"]) == 1, "the limit of List")
            check(pool.Why(id=ids[0])["text"], "no reason")
            check(pool.Status()["status"]["workers"]["active"] >= 1, "no worker")
            check(pool.Workers()["workers"], "no worker in the list")
            check(pool.Logs(ids=[ids[0]])["directory"], "no place of the logs")
            check(list(pool.Events(_more=True)), "no event")

            for call, name in [
                (lambda: pool.Show(id="1099511627775"), "io.acode.NoSuchTask"),
                (lambda: pool.Show(id="a name that no task has"), "io.acode.NoSuchTask"),
                (lambda: pool.Submit(tasks=[{"spec": {"command": []}}]), "io.acode.InvalidSubmission"),
                (lambda: pool.Submit(tasks=[]), "io.acode.InvalidSubmission"),
            ]:
                try:
                    reply = call()
                    check(False, f"{name} was expected, not {reply}")
                except varlink.VarlinkError as error:
                    check(error.error() == name, f"{name} was expected, not {error.error()}")
            try:
                pool.Show(id="")
                check(False, "a text that names nothing was accepted")
            except varlink.InvalidParameter:
                pass


if __name__ == "__main__":
    check(len(sys.argv) == 2, __doc__)
    main(sys.argv[1])
    print("varlink_client: all as it should be")
