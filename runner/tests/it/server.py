"""An MCP server for tests: each tool shows one thing about how the server is run."""

import json
import os
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request

out = sys.stdout.buffer
asked = {}
next_id = 0


def send(message):
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def text(value):
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def tool_env(_id, args):
    return dict(os.environ)


def tool_who(_id, args):
    with open("/proc/self/status") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status)
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "umask": os.umask(0o077),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        "no_new_privs": fields.get("NoNewPrivs"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "file_bytes": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    }


def tool_read(_id, args):
    try:
        if os.path.isdir(args["path"]):
            return os.listdir(args["path"])
        with open(args["path"], "rb") as file:
            return file.read(100_000).decode("latin-1")
    except OSError as error:
        return "error: " + error.strerror


def tool_write(_id, args):
    try:
        with open(args["path"], "w") as file:
            file.write(args["text"])
        return "written"
    except OSError as error:
        return "error: " + error.strerror


def tool_chmod(_id, args):
    try:
        os.chmod(args["path"], args["mode"])
        return "changed"
    except OSError as error:
        return "error: " + error.strerror


def tool_kill(_id, args):
    try:
        os.kill(args["pid"], 9)
        return "killed"
    except OSError as error:
        return "error: " + error.strerror


def tool_fork(_id, args):
    """A grandchild in a session of its own, whose parent ends at once."""
    code = "import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\nos.close(1)\ntime.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    pid = int(child.stdout.readline())
    child.wait()
    return pid


def tool_bomb(_id, args):
    """Forks as long as it can; all of them stay, in sessions of their own, and go on forking."""
    for _ in range(1000):
        try:
            if os.fork() == 0:
                os.setsid()
                while True:
                    try:
                        if os.fork() == 0:
                            os.setsid()
                    except OSError:
                        time.sleep(0.01)
        except OSError:
            sys.stderr.write("no more processes\n")
            sys.stderr.flush()
            return "bombed"
    return "no bound"


def attempts(args):
    """Ways out of a service's walls."""
    import ctypes
    import socket
    import stat

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, *values):
        if getattr(libc, name)(*values) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def opened(path, flags):
        os.close(os.open(path, flags))

    def connected(family, address):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(address)

    pid = args["sibling"]
    here = os.environ["HOME"]
    return {
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
        "metadata address": lambda: connected(socket.AF_INET, ("169.254.169.254", 80)),
        "another address": lambda: connected(socket.AF_INET, ("8.8.8.8", 53)),
        "address of version 6": lambda: connected(socket.AF_INET6, ("2001:4860:4860::8888", 53)),
        "name server": lambda: socket.getaddrinfo("example.org", 80),
        "docker socket": lambda: connected(socket.AF_UNIX, "/var/run/docker.sock"),
        "become root": lambda: os.setuid(0),
        "become the sibling": lambda: os.setuid(args["sibling_uid"]),
        "groups": lambda: os.setgroups([0]),
        "device": lambda: os.mknod(here + "/device", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
        "memory of the machine": lambda: opened("/dev/mem", os.O_RDONLY),
        "mount": lambda: call("mount", b"none", here.encode(), b"tmpfs", 0, None),
        "chroot": lambda: os.chroot("/"),
        "host name": lambda: socket.sethostname("x"),
        "settings of the kernel": lambda: opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
        "trace the sibling": lambda: call("ptrace", 16, pid, None, None),
        "trace the runner": lambda: call("ptrace", 16, 1, None, None),
        "output of the runner": lambda: opened("/proc/1/fd/1", os.O_WRONLY),
        "input of the runner": lambda: opened("/proc/1/fd/0", os.O_RDONLY),
        "memory of the runner": lambda: opened("/proc/1/mem", os.O_RDONLY),
        "input of the sibling": lambda: opened(f"/proc/{pid}/fd/0", os.O_WRONLY),
        "memory of the sibling": lambda: opened(f"/proc/{pid}/mem", os.O_RDWR),
        "environment of the sibling": lambda: opened(f"/proc/{pid}/environ", os.O_RDONLY),
        "stop the sibling": lambda: os.kill(pid, 19),
        "priority of the sibling": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "bounds of the sibling": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1)),
        "bounds of its own": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000)),
        "passwords": lambda: opened("/etc/shadow", os.O_RDONLY),
        "program of the runner": lambda: opened("/proc/1/exe", os.O_RDONLY),
        "list of services": lambda: os.listdir(os.path.join(here, "../..")),
        "link out of its folder": lambda: os.symlink("/etc", os.path.join(here, "../link")),
        "rename its folder": lambda: os.rename(os.path.join(here, ".."), os.path.join(here, "../../mine")),
        "rename its secrets": lambda: os.rename(os.path.join(here, "../secrets"), os.path.join(here, "../mine")),
    }


def tool_escape(_id, args):
    results = {}
    for name, attempt in attempts(args).items():
        try:
            attempt()
            results[name] = "works"
        except OSError as error:
            results[name] = "error: " + str(error.strerror)
        except ValueError as error:
            results[name] = "error: " + str(error)
    return results


def tool_processes(_id, args):
    return sum(1 for name in os.listdir("/proc") if name.isdigit())


def tool_direct(_id, args):
    import socket

    try:
        with socket.create_connection((args["host"], args["port"]), timeout=5):
            return "connected"
    except OSError as error:
        return "error: " + error.strerror


def tool_crash(_id, args):
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os._exit(args.get("code", 3))


def tool_say(_id, args):
    getattr(sys, args.get("to", "stderr")).write(args["text"] + "\n")
    getattr(sys, args.get("to", "stderr")).flush()
    return "said"


def tool_big(_id, args):
    return "x" * args["bytes"]


def tool_progress(id, args):
    token = args["_meta"].get("progressToken")
    for step in range(args["steps"]):
        if token is not None:
            params = {"progressToken": token, "progress": step + 1, "total": args["steps"]}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    return {"token": token is not None}


def tool_wait(id, args):
    return None


def tool_get(_id, args):
    try:
        with urllib.request.urlopen(args["url"], timeout=20) as answer:
            return {"status": answer.status, "text": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "text": error.read().decode()}
    except OSError as error:
        return {"error": str(error)}


def tool_connect(_id, args):
    """A connection through the proxy at `port`, or without one; what comes back for `text`."""
    import socket

    try:
        with socket.create_connection(("127.0.0.1", args["port"]), timeout=20) as sock:
            sock.sendall(args["text"].encode("latin-1"))
            answer = b""
            while True:
                piece = sock.recv(65536)
                if not piece:
                    return answer.decode("latin-1")
                answer += piece
    except OSError as error:
        return "error: " + str(error)


def tool_ask(id, args):
    global next_id
    next_id += 1
    asked[f"ask-{next_id}"] = id
    send({"jsonrpc": "2.0", "id": f"ask-{next_id}", "method": args["method"], "params": args.get("params", {})})
    return None


def tool_change(_id, args):
    TOOLS.append("extra")
    send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hello"}})
    return "changed"


def tool_bad(_id, args):
    raise ValueError("no")


TOOLS = [name[5:] for name in dir() if name.startswith("tool_")]
mode = sys.argv[1] if len(sys.argv) > 1 else ""
if mode == "silent":
    time.sleep(600)
if mode == "exit":
    sys.stderr.write("cannot: token is " + os.environ.get("TOKEN", "?") + "\n")
    sys.exit(9)

for line in sys.stdin.buffer:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method is None:
        result = {"content": [], "structuredContent": message}
        send({"jsonrpc": "2.0", "id": asked.pop(id), "result": result})
    elif method == "initialize":
        sys.stderr.write("started\n")
        sys.stderr.flush()
        version = "1999-01-01" if mode == "old" else message["params"]["protocolVersion"]
        result = {
            "protocolVersion": os.environ.get("REVISION", version),
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "test", "version": "1"},
            "client": message["params"],
        }
        send({"jsonrpc": "2.0", "id": id, "result": result})
    elif method == "tools/list":
        start = int(message.get("params", {}).get("cursor", 0))
        page = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS[start : start + 10]]
        result = {"tools": page}
        if start + 10 < len(TOOLS):
            result["nextCursor"] = str(start + 10)
        send({"jsonrpc": "2.0", "id": id, "result": result})
    elif method == "ping":
        if mode != "deaf":
            send({"jsonrpc": "2.0", "id": id, "result": {}})
    elif method == "tools/call":
        params = message["params"]
        args = dict(params.get("arguments", {}), _meta=params.get("_meta", {}))
        try:
            value = globals()["tool_" + params["name"]](id, args)
            if value is not None:
                send({"jsonrpc": "2.0", "id": id, "result": text(value)})
        except Exception as error:
            send({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": repr(error), "data": 1.10}})
    elif method == "notifications/cancelled":
        sys.stderr.write("cancelled: " + message["params"].get("reason", "") + "\n")
        sys.stderr.flush()
    elif method.startswith("notifications/"):
        sys.stderr.write("heard " + method + " " + json.dumps(message.get("params")) + "\n")
        sys.stderr.flush()

sys.stderr.write("the input has ended\n")
