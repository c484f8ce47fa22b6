#!/usr/bin/env python3
"""Stands in for docker, scw and kubectl in a job, each under its own name, where the real one is not there.

It keeps to what their documentation says of the calls that the page shows, refuses all others, and notes each call in the
folder that the variable STAND_INS names. Where a call sends credentials, it sends them, to a registry that checks them. A docker
that logs in by itself, without a daemon, does so where that folder has it; all else of it takes a daemon.
"""

import base64
import json
import os
import stat
import sys
import urllib.error
import urllib.request

FOLDER = os.environ["STAND_INS"]
NAME = os.path.basename(sys.argv[0])
ARGUMENTS = sys.argv[1:]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def note(**more):
    """Says that this was called, how, and with which variables."""
    told = ("SCW_", "AWS_", "TF_VAR_", "VAULT_", "DOCKER_")
    call = {
        "program": NAME,
        "arguments": ARGUMENTS,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(told)},
        **more,
    }
    with open(os.path.join(FOLDER, "calls"), "a", encoding="utf-8") as file:
        file.write(json.dumps(call) + "\n")


def docker_config():
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(folder, "config.json")


def registry_answers(host, login):
    """The status that the registry has for a login, which is base64 of user and password."""
    request = urllib.request.Request(f"http://{host}/v2/", headers={"Authorization": f"Basic {login}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def docker_login():
    host, *flags = ARGUMENTS[1:]
    if flags != ["-u", "nologin", "--password-stdin"]:
        sys.exit(f"docker login: {flags}")
    real = os.path.join(FOLDER, "real-docker")
    if os.path.exists(real):
        note(status=None)
        # No daemon of this machine is to know of it.
        os.execve(real, ["docker", *ARGUMENTS], {**os.environ, "DOCKER_HOST": f"unix://{FOLDER}/no-daemon"})
    password = sys.stdin.read()
    login = base64.b64encode(f"nologin:{password}".encode()).decode()
    status = registry_answers(host, login)
    note(status=status)
    if status != 200:
        sys.exit("unauthorized: authentication required")
    path = docker_config()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"auths": {host: {"auth": login}}}, file)


def docker_pushes(host):
    """Logs in as a push does: by what the configuration has for the registry."""
    logins = json.loads(read(docker_config()))["auths"]
    status = registry_answers(host, logins[host]["auth"])
    note(status=status, registries=sorted(logins))
    if status != 200:
        sys.exit("denied: requested access to the resource is denied")


def scw():
    note()
    if ARGUMENTS == ["k8s", "cluster", "list"]:
        print("ID  NAME  STATUS")
    elif ARGUMENTS == ["k8s", "kubeconfig", "get", os.environ["CLUSTER_ID"]]:
        print(read(os.path.join(FOLDER, "kubeconfig")), end="")
    else:
        sys.exit(f"scw: {ARGUMENTS}")


def kubectl():
    if ARGUMENTS[0] != "apply" or "-f" not in ARGUMENTS:
        sys.exit(f"kubectl: {ARGUMENTS}")
    kubeconfig = os.environ["KUBECONFIG"]
    note(
        kubeconfig=read(kubeconfig),
        mode=stat.S_IMODE(os.stat(kubeconfig).st_mode),
        manifest=read(ARGUMENTS[ARGUMENTS.index("-f") + 1]),
    )


def docker():
    if ARGUMENTS[0] == "login":
        docker_login()
    elif ARGUMENTS[0] == "push" and len(ARGUMENTS) == 2:
        docker_pushes(ARGUMENTS[1].split("/")[0])
    elif ARGUMENTS == ["compose", "up", "-d"]:
        docker_pushes(read("compose.yaml").split("image: ")[1].split("/")[0])
    else:
        sys.exit(f"docker: {ARGUMENTS}")


{"docker": docker, "kubectl": kubectl, "scw": scw}[NAME]()
