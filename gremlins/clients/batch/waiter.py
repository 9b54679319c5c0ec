"""A parked gremlin: a small process of the standard library that sleeps.

It keeps the gremlin's lock across exec in both directions. When a poll is due it reads the answer another gremlin
left, or starts a child to ask the API (`clients.batch.shared_poll`). When there is work it becomes the runner again.
It imports nothing of gremlins: it runs without site-packages.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

POLL_SHARE = 0.15  # as gremlins.retry.poll_interval; a test holds the two together
SPREAD = 0.2
FOLLOW = 0.1
"""Followers poll up to 10 % later than the leader, so one gremlin polls for all; if it dies, a follower leads."""
FRESH_SHARE = 0.6
"""An answer no older than this share of the interval counts as this gremlin's own poll. It is more than half: else two
groups could poll in turn for ever, each too late for the other's answer."""

NOTHING_NEW = 0
SOMETHING_TO_DO = 10
NOTHING_LEARNED = 11
"""Exit codes of the polling child. Any other means that it could not start, for example after an upgrade."""
ODD_ENDS = 3
"""Number of unknown exit codes in a row after which the runner wakes."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PROGRAM_PATIENCE = 30.0
"""Seconds to wait for a program that is just being replaced. Then the process ends, and `rescue` goes on."""
LARGEST_PLAN = 16 * 2**20
"""Characters of `wait.json`."""
TURN_PATIENCE = 600
"""Seconds to wait for a turn to wake up, when very many wake at once."""
HANDOVER_PATIENCE = 30.0
"""Seconds to wait for the fork server's answer."""
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CHANGING = (
    *("Name:", "State:", "Tgid:", "Ngid:", "Pid:", "PPid:", "TracerPid:", "FDSize:", "NStgid:", "NSpid:", "NSpgid:"),
    *("NSsid:", "Kthread:", "Vm", "Rss", "HugetlbPages:", "CoreDumping:", "THP_enabled:", "Threads:", "Sig", "Shd"),
    *("nonvoluntary_ctxt_switches:", "voluntary_ctxt_switches:"),
)
"""Lines of `/proc/self/status` that say nothing of where a process runs and with which rights."""


class Signalled(Exception):
    """Raised by the signal handler to interrupt a system call that Python would restart."""


def surroundings() -> list[object]:
    """Everything that a process of another ancestry cannot be given: rights, namespaces, limits, and the variables
    that an interpreter reads when it starts. Linux only.
    """
    texts = []
    for name in ("cgroup", "limits", "oom_score_adj", "status"):
        with open(f"/proc/self/{name}", encoding="utf-8", errors="replace") as file:
            texts.append([line for line in file if name != "status" or not line.startswith(CHANGING)])
    links = [os.readlink(f"/proc/self/{name}") for name in ("root", *(f"ns/{space}" for space in NAMESPACES))]
    read_at_start = ("PYTHON", "LC_", "LANG", "LD_", "TZ")
    variables = sorted(item for item in os.environ.items() if item[0].startswith(read_at_start))
    return [texts, links, os.nice(0), [list(item) for item in variables]]


class Waiter:
    """Waits as `wait.json` says, then becomes the runner."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = os.open(self.wait_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, encoding="utf-8") as file:
            self.plan: dict[str, Any] = json.loads(file.read(LARGEST_PLAN))
        self.signalled = 0
        self.in_line = False
        self.in_crowd = False
        self.leads = False
        self.at = 0.0
        self.odd = 0

    # ── the world ─────────────────────────────────────────────────────────────────────────────────────────────

    def install(self) -> None:
        """Take over the lock from the process before exec, close our memory to other processes, and unblock signals."""
        if sys.platform == "linux":  # as gremlins.processes.children.close_memory: we hold the credentials' descriptor
            import ctypes

            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        os.set_inheritable(self.plan["lock_fd"], False)
        self.read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self.on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def on_signal(self, number: int, _frame: object) -> None:
        self.signalled = number
        if self.in_line:
            raise Signalled

    def now(self) -> float:
        """Seconds since 1970; can jump."""
        return time.time()

    def ticks(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until a signal."""
        if select.select([self.read_end], [], [], min(seconds, 3600.0))[0]:
            os.read(self.read_end, 4096)

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def wait_file(self) -> str:
        return os.path.join(self.folder, "wait.json")

    def run(self) -> None:
        """Sleep and poll until there is something to do; never returns."""
        pollable = self.plan["pollable"]
        due = self.ticks() + self.left_until(self.plan["until"])
        while not self.signalled:
            now = self.ticks()
            if now < due:
                self.sleep(due - now)
            elif self.home_is_gone() or not pollable or self.poll():
                self.take_turn()
                break
            else:
                due = self.ticks() + self.plan_next()
        if self.signalled:
            self.leave()
        self.wake()

    def left_until(self, epoch: float) -> float:
        """Seconds until a stored time, at most the longest interval: the clock may have been set back."""
        longest: float = self.plan["longest"]
        return min(max(0.0, epoch - self.now()), longest)

    def home_is_gone(self) -> bool:
        """True if the folder is certainly no longer at its path. An error proves nothing."""
        try:
            found = os.stat(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return not os.path.samestat(found, os.fstat(self.folder_fd))

    # ── polling ───────────────────────────────────────────────────────────────────────────────────────────────

    def interval(self) -> float:
        """Seconds between polls, by the age of the youngest batch; unjittered."""
        age = min((self.now() - call["submitted_at"] for call in self.plan["calls"]), default=0.0)
        return float(min(max(self.plan["poll_initial"], POLL_SHARE * age), self.plan["poll_max"]))

    def poll(self) -> bool:
        """True if a batch of ours has ended, or the runner should look."""
        self.at, known = self.shared_answer(self.interval() * FRESH_SHARE)
        self.leads = any(call["batch_id"] not in known for call in self.plan["calls"])
        if self.leads:
            code = self.ask()
            self.odd = self.odd + 1 if code not in (NOTHING_NEW, SOMETHING_TO_DO, NOTHING_LEARNED) else 0
            if code == SOMETHING_TO_DO or self.odd >= ODD_ENDS:
                return True
            at, known = self.shared_answer(self.interval())
            self.at = at if code == NOTHING_NEW else self.now()
        for call in self.plan["calls"]:
            call["processing_status"] = known.get(call["batch_id"], call["processing_status"])
        return any(known.get(call["batch_id"]) == "ended" or self.is_overdue(call) for call in self.plan["calls"])

    def is_overdue(self, call: dict[str, Any]) -> bool:
        """True if the batch should have ended long ago: the runner decides how long it is waited for."""
        overdue_at = call.get("overdue_at")
        return overdue_at is not None and self.now() > overdue_at

    def shared_answer(self, fresh: float) -> tuple[float, dict[str, str]]:
        """The epoch of the last shared poll and its statuses by batch id; no statuses if it is older than `fresh`
        seconds.
        """
        now = self.now()
        try:
            with open(self.plan["answer"], encoding="utf-8") as file:
                answer = json.load(file)
            at: float = answer["at"]
            batches: dict[str, str] = answer["batches"]
            return (at, dict(batches)) if -1.0 <= now - at <= fresh else (now, {})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return now, {}

    def ask(self) -> int:
        """Start the polling child and wait for it, with a time limit. Returns its exit code."""
        try:
            pid = os.posix_spawn(self.plan["poll"][0], self.plan["poll"], os.environ)
        except (FileNotFoundError, NotADirectoryError):
            return SOMETHING_TO_DO  # the program is gone: waking up waits for it, and says so
        except OSError:
            return NOTHING_LEARNED  # out of processes, say: the next poll tries again
        give_up = self.ticks() + 3 * self.plan["http_timeout"] + 15
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if self.signalled or self.ticks() > give_up:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return NOTHING_LEARNED
            self.sleep(1.0)

    def plan_next(self) -> float:
        """Record the poll and the time of the next one. Returns the seconds until then."""
        low, high = (1 - SPREAD, 1 + SPREAD) if self.leads else (1.0, 1.0 + FOLLOW)
        asked_ago = max(0.0, self.now() - self.at)
        interval = self.interval()
        seconds = max(interval * random.uniform(low, high) - asked_ago, interval * FOLLOW)
        self.plan["polls"] += 1
        self.plan["until"] = self.now() + seconds
        self.write_plan()
        return seconds

    def write_plan(self) -> None:
        """Write the plan into the folder, wherever that is now. Only `status` shows it: an error changes nothing."""
        temp, at = f"wait.json.{os.getpid()}.tmp", self.folder_fd
        try:
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=at)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(self.plan))
            os.replace(temp, "wait.json", src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            pass

    # ── ending ────────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self) -> None:
        """End after a signal; if a stop was requested, wake the runner, which carries it out."""
        if os.path.exists(os.path.join(self.folder, "stop.json")):
            self.wake()
        os._exit(128 + self.signalled)

    def take_turn(self) -> None:
        """Wait for one of a few turns to wake up: a runner is ten times as large as a waiter, and thousands may wake
        in the same minute. The runner inherits the turn's lock and releases it soon.
        """
        places: list[str] = self.plan.get("turns") or []
        random.shuffle(places)
        try:
            fd = self.free_turn(places)
        except OSError:
            return
        if fd is None:
            return
        signal.signal(signal.SIGALRM, self.on_signal)
        try:
            self.in_line = True
            signal.alarm(TURN_PATIENCE)
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.in_line = False
            os.set_inheritable(fd, True)
            os.environ[self.plan["turn_variable"]] = str(fd)
        except (OSError, Signalled):
            os.close(fd)
        finally:
            self.in_line = False
            signal.alarm(0)  # an alarm survives an exec
        if self.signalled == signal.SIGALRM:
            self.signalled = 0

    def free_turn(self, places: list[str]) -> int | None:
        """A descriptor of the first free turn, else of the last one: then we are one of a crowd."""
        fd = None
        for place in places:
            if fd is not None:
                os.close(fd)
            fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.in_crowd = True
            else:
                self.in_crowd = False
                break
        return fd

    def go_on_as_a_fork(self) -> None:
        """In a crowd: let a fork of the fork server go on in our place, and end. Returns where that cannot be."""
        if not self.in_crowd or sys.platform != "linux" or not self.plan.get("fork_server"):
            return
        self.in_crowd = False
        ends, started = self.ticks() + HANDOVER_PATIENCE, False
        try:
            while (pid := self.hand_over()) is None and self.ticks() < ends and not signal.sigpending() & set(SIGNALS):
                if self.start_fork_server():
                    if started:
                        break  # it ended again
                    started = True
                time.sleep(0.05)
            if pid:
                for number in signal.sigpending() & set(SIGNALS):
                    os.kill(pid, number)
                os._exit(0)
        except (OSError, ValueError):
            pass  # this process becomes the runner

    def hand_over(self) -> int | None:
        """Have a runner forked that inherits our descriptors and variables. Returns its pid; 0: refused, None: there is
        no server yet.

        The runner begins only after it has heard "go", so that never two of us go on.
        """
        import socket

        names = [name for name in self.plan["descriptors"] if os.environ.get(name, "").isdigit()]
        order = {"argv": self.plan["runner"], "env": dict(os.environ), "names": names, "at": surroundings()}
        at = os.open(self.plan["fork_folder"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
                line.settimeout(HANDOVER_PATIENCE)
                line.connect(f"/proc/self/fd/{at}/fork_server")  # the path itself may be too long for a socket
                data = json.dumps(order).encode()
                socket.send_fds(line, [data], [0, 1, 2, *(int(os.environ[name]) for name in names)])
                pid = int(line.recv(32) or b"0")
                if pid:
                    os.ftruncate(self.plan["lock_fd"], 0)  # unsigned, as before every start
                    os.pwrite(self.plan["lock_fd"], b'{"role": "runner", "pid": null}', 0)
                    line.send(b"go")
                return pid
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        finally:
            os.close(at)

    def start_fork_server(self) -> bool:
        """Start it for us and those in line behind us. False: it is there already, or is being started."""
        lock = os.open(os.path.join(self.plan["fork_folder"], "fork_server.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(lock, True)
            argv = [*self.plan["fork_server"], str(lock)]
            env = {name: value for name, value in os.environ.items() if name not in self.plan["descriptors"]}
            null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
            os.posix_spawn(argv[0], argv, env, file_actions=null, setsid=True, setsigmask=())
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def wake(self) -> None:
        """Become the runner, with signals blocked. Waits a while for a program that is just being replaced."""
        if self.home_is_gone():
            self.give_up(f"{self.folder} was moved or removed")
        ends = self.ticks() + PROGRAM_PATIENCE
        while True:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self.go_on_as_a_fork()
            signal.set_wakeup_fd(-1)
            os.set_inheritable(self.plan["lock_fd"], True)
            try:
                os.execv(self.plan["runner"][0], self.plan["runner"])
            except OSError as error:
                os.set_inheritable(self.plan["lock_fd"], False)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                if self.signalled or self.ticks() >= ends:
                    self.give_up(f"its program {self.plan['runner'][0]} cannot be started: {error.strerror}")
                self.rest()

    def rest(self) -> None:
        """Sleep between two attempts to start the program."""
        time.sleep(1.0)

    def give_up(self, why: str) -> NoReturn:
        """End, and leave the reason behind. The batch stays outstanding: a rescue takes it up again."""
        self.plan["gave_up"] = why
        self.write_plan()
        os._exit(128 + self.signalled if self.signalled else 1)


if __name__ == "__main__":
    waiter = Waiter(sys.argv[1])
    waiter.install()
    waiter.run()
