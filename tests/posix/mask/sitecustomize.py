"""Make Python on Linux lack what it lacks on another system, in the programs that use the package.

Python imports this file when it starts, if its folder is in PYTHONPATH. SIPC_TEST_LIKE names the
system: macos, freebsd, gvisor, or noproc (Linux without /proc). The kernel remains that of Linux:
what only another kernel can do (kqueue, its poll, its limits) cannot be tested here.

Sources: those of XNU 11417, FreeBSD and gVisor; mypy's lists of names for each system.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import partial

PLATFORMS = {"macos": "darwin", "freebsd": "freebsd14", "gvisor": "linux", "noproc": "linux"}

_NOT_POSIX = {
    "os": (
        "P_PIDFD PIDFD_NONBLOCK pidfd_open RWF_APPEND RWF_DSYNC RWF_HIPRI RWF_NOWAIT RWF_SYNC"
        " O_TMPFILE O_NOATIME splice setns unshare sched_getaffinity sched_setaffinity"
    ),
    "select": (
        "epoll EPOLLERR EPOLLET EPOLLEXCLUSIVE EPOLLHUP EPOLLIN EPOLLMSG EPOLLONESHOT EPOLLOUT"
        " EPOLLPRI EPOLLRDBAND EPOLLRDHUP EPOLLRDNORM EPOLLWRBAND EPOLLWRNORM EPOLL_CLOEXEC"
        " POLLMSG POLLRDHUP"
    ),
    "fcntl": "F_GETPIPE_SZ F_SETPIPE_SZ F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_ADD_SEALS",
    "_socket": "SO_PEERCRED SO_PASSCRED SO_PEERSEC SO_DOMAIN SO_PROTOCOL SCM_CREDENTIALS MSG_MORE",
    "_signal": "pidfd_send_signal",
    "resource": "prlimit RUSAGE_THREAD",
}
_NOT_MACOS = {
    "os": (
        "O_PATH eventfd eventfd_read eventfd_write EFD_CLOEXEC EFD_NONBLOCK EFD_SEMAPHORE"
        " memfd_create MFD_CLOEXEC copy_file_range pipe2 waitid waitid_result getresuid getresgid"
        " setresuid setresgid posix_fadvise posix_fallocate fdatasync POSIX_SPAWN_CLOSEFROM"
    ),
    "_socket": "SOCK_NONBLOCK SOCK_CLOEXEC MSG_NOSIGNAL MSG_CMSG_CLOEXEC",
    "_signal": "sigtimedwait sigwaitinfo",
}
_LACKING = {"macos": (_NOT_POSIX, _NOT_MACOS), "freebsd": (_NOT_POSIX,)}

_MAX_ADDRESS = 103  # bytes of sun_path, less its NUL
_OPEN_MAX = 10240  # the largest limit of descriptors that macOS grants
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2


def apply(system: str, *, is_test: bool = False) -> None:
    """Change this process. One that runs tests keeps what it needs to look at others."""
    sys.platform = PLATFORMS[system]
    if system == "macos":
        _change_waitid()
    for lacking in _LACKING.get(system, ()):
        for module, names in lacking.items():
            if not (is_test and module in {"fcntl", "resource"}):
                _remove(module, names.split())
    if system in _LACKING:
        import select

        select.PIPE_BUF = 512
        _change_sockets(system)
        _change_calls(system, is_test=is_test)
    if system == "gvisor":
        _change_gvisor()
    elif not is_test and not (system == "noproc" and _unmount_proc()):
        _refuse_proc()


def _error(number: int, *rest: object) -> OSError:
    return OSError(number, os.strerror(number), *rest)


def _remove(name: str, attributes: list[str]) -> None:
    modules = [__import__(name)]
    if name == "os":
        modules.append(__import__("posix"))
    if name == "_signal" and "signal" in sys.modules:
        modules.append(sys.modules["signal"])
    for module in modules:
        for attribute in attributes:
            if hasattr(module, attribute):
                delattr(module, attribute)


def _replace(name: str, function) -> None:
    """Replace a function of `os`."""
    import posix

    setattr(posix, name, function)
    setattr(os, name, function)


def _unmount_proc() -> bool:
    """Unmount /proc for this process and its children. Return whether that is permitted."""
    import ctypes

    namespaces, slave, recursive, detach = 0x20000, 1 << 19, 1 << 14, 2
    libc = ctypes.CDLL(None)
    return (
        libc.unshare(namespaces) == 0
        and libc.mount(b"none", b"/", None, slave | recursive, None) == 0
        and libc.umount2(b"/proc", detach) == 0
    )


def _refuse_proc() -> None:
    import builtins
    import io

    def refusing(function):
        def call(path=".", *arguments, **options):
            name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
            if name == "/proc" or name.startswith("/proc/"):
                raise _error(errno.ENOENT, path)
            return function(path, *arguments, **options)

        return call

    for name in "open listdir readlink stat lstat scandir".split():
        _replace(name, refusing(getattr(os, name)))
    builtins.open = io.open = refusing(open)


def _change_gvisor() -> None:
    """Refuse what gVisor's kernel does not support, or did not support in older releases."""
    import _socket
    import fcntl

    def pidfd_open(*_: object) -> int:
        raise _error(errno.ENOSYS)

    def preadv(descriptor, buffers, offset, flags=0, preadv=os.preadv):
        if flags:
            raise _error(errno.EOPNOTSUPP)
        return preadv(descriptor, buffers, offset)

    def change_descriptor(descriptor, command, argument=0, change=fcntl.fcntl):
        if command == fcntl.F_SETPIPE_SZ:
            raise _error(errno.EPERM)
        return change(descriptor, command, argument)

    class Socket(_socket.socket):
        __slots__ = ()  # as socket.socket has __weakref__ in its own

        def connect(self, address) -> None:
            try:
                super().connect(address)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    raise _error(errno.ECONNREFUSED) from None
                raise

    _replace("pidfd_open", pidfd_open)
    _replace("preadv", preadv)
    fcntl.fcntl = change_descriptor
    _socket.socket = Socket


def _change_calls(system: str, *, is_test: bool) -> None:
    import stat

    def fchmod(descriptor, mode, fchmod=os.fchmod):
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise _error(errno.EINVAL)
        fchmod(descriptor, mode)

    def posix_spawn(*arguments, setsid=False, spawn=os.posix_spawn, **options):
        if setsid:
            raise NotImplementedError("posix_spawn: setsid unavailable on this platform")
        return spawn(*arguments, **options)

    def listdir(path=".", listdir=os.listdir):
        return ["0", "1", "2"] if path == "/dev/fd" else listdir(path)  # without fdescfs(5)

    _replace("fchmod", fchmod)
    if system == "freebsd":
        _replace("posix_spawn", posix_spawn)
        _replace("posix_spawnp", partial(posix_spawn, spawn=os.posix_spawnp))
        _replace("listdir", listdir)
    if not is_test:
        _change_ioctl()
        if system == "macos":
            _change_limits()


def _change_waitid() -> None:
    """Let the C library's waitid(2) have the options and the siginfo_t of macOS."""
    import ctypes
    import struct

    wnohang, wnowait = 0x01, 0x20

    def waitid(kind, number, info, options, waitid=os.waitid) -> int:
        flags = os.WEXITED
        flags |= os.WNOHANG if options & wnohang else 0
        flags |= os.WNOWAIT if options & wnowait else 0
        try:
            found = waitid(kind, number, flags)
        except OSError as error:
            ctypes.set_errno(error.errno)
            return -1
        if found is not None:
            ended = (found.si_code, found.si_pid, found.si_uid, found.si_status)
            struct.pack_into("@4iIi", info, 0, found.si_signo, 0, *ended)
        return 0

    class Library(ctypes.CDLL):
        def __getattr__(self, name):
            return waitid if name == "waitid" else super().__getattr__(name)

    ctypes.CDLL = Library


def _change_limits() -> None:
    import resource

    kept = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def getrlimit(limit, get=resource.getrlimit):
        soft, hard = get(limit)
        is_unlimited = limit == resource.RLIMIT_NOFILE and hard > _OPEN_MAX
        return (soft, resource.RLIM_INFINITY) if is_unlimited else (soft, hard)

    def setrlimit(limit, limits, set_limits=resource.setrlimit):
        soft, hard = limits
        if limit == resource.RLIMIT_NOFILE:
            if not 0 <= soft <= _OPEN_MAX:
                raise ValueError("current limit exceeds maximum limit")
            hard = kept if hard == resource.RLIM_INFINITY else hard
        set_limits(limit, (soft, hard))

    resource.getrlimit, resource.setrlimit = getrlimit, setrlimit


def _change_ioctl() -> None:
    """Find no bytes at the writing end of a pipe: FIONREAD looks in the other direction there."""
    import fcntl
    import stat
    import termios

    def ioctl(descriptor, request, *arguments, ioctl=fcntl.ioctl):
        found = ioctl(descriptor, request, *arguments)
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        is_writing = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        nothing = request == termios.FIONREAD and is_pipe and is_writing
        return bytes(len(found)) if nothing else found

    fcntl.ioctl = ioctl


def _change_sockets(system: str) -> None:
    """Let Unix domain sockets behave as those of XNU or FreeBSD."""
    import _socket
    import select
    import stat

    is_macos = system == "macos"
    dontwait = _socket.MSG_DONTWAIT if is_macos else 0
    so_peercred, size_of_ucred = 17, 12

    def checked(address):
        path = os.fsencode(address) if isinstance(address, (str, bytes, os.PathLike)) else b""
        if len(path) > _MAX_ADDRESS:
            raise OSError("AF_UNIX path too long")
        return address

    class Socket(_socket.socket):
        __slots__ = ()  # as socket.socket has __weakref__ in its own

        def bind(self, address) -> None:
            super().bind(checked(address))

        def connect(self, address) -> None:
            if self.family != _socket.AF_UNIX:
                super().connect(address)
                return
            is_blocking = os.get_blocking(self.fileno())
            os.set_blocking(self.fileno(), False)
            try:
                super().connect(checked(address))
            except BlockingIOError:  # its queue is full
                raise _error(errno.ECONNREFUSED) from None
            except ConnectionRefusedError:
                if not stat.S_ISSOCK(os.stat(address).st_mode):
                    raise _error(errno.ENOTSOCK) from None
                raise
            finally:
                os.set_blocking(self.fileno(), is_blocking)

        def _accept(self):
            descriptor, address = super()._accept()
            if is_macos:
                os.set_blocking(descriptor, os.get_blocking(self.fileno()))
            return descriptor, address

        def shutdown(self, how) -> None:
            if self.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                raise _error(errno.ENOTCONN)
            super().shutdown(how)

        def send(self, data, flags=0):
            return super().send(data, flags & ~dontwait)

        def sendto(self, data, *rest):
            flags = [rest[0] & ~dontwait] if len(rest) == 2 else []
            return super().sendto(data, *flags, rest[-1])

        def sendmsg(self, buffers, ancillary=(), flags=0, *address):
            return super().sendmsg(buffers, ancillary, flags & ~dontwait, *address)

        def getsockopt(self, level, name, *size):
            if level != _SOL_LOCAL:
                return super().getsockopt(level, name, *size)
            found = super().getsockopt(_socket.SOL_SOCKET, so_peercred, size_of_ucred)
            pid, uid, gid = memoryview(found).cast("I")  # a user id may be above 2**31
            return self._local_option(name, pid, uid, gid, *size)

        def _local_option(self, name, pid, uid, gid, size=0):
            import struct

            if name == _LOCAL_PEERCRED:  # struct xucred, with one group
                found = struct.pack("=IIhxx16I", 0, uid, 1, gid, *[0] * 15)
                return (found if is_macos else found + struct.pack("=4xi4x", pid))[:size]
            if name != _LOCAL_PEERPID or not is_macos:
                raise _error(errno.ENOPROTOOPT)
            poll = select.poll()
            poll.register(self.fileno(), 0)
            if poll.poll(0):  # the peer has closed
                raise _error(errno.ENOTCONN)
            return struct.pack("=i", pid) if size else pid

    def socketpair(
        family=_socket.AF_UNIX, kind=_socket.SOCK_STREAM, *rest, pair=_socket.socketpair
    ):
        if is_macos and kind == _socket.SOCK_SEQPACKET:
            raise _error(errno.EPROTONOSUPPORT)
        return pair(family, kind, *rest)

    _socket.socket, _socket.socketpair = Socket, socketpair


def _program() -> str:
    """Return the text of the program that this process runs."""
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word in {"-X", "-W"}:
            next(words, "")
        elif word in {"-c", "-m"}:
            return next(words, "")
        elif not word.startswith("-"):
            try:
                with open(word, errors="replace") as file:
                    return file.read()
            except OSError:
                return ""
    return ""


def _uses_package() -> bool:
    return any(word.endswith("/sipc") for word in sys.orig_argv) or "simpleipc_cli" in _program()


if __name__ == "sitecustomize" and _uses_package():
    apply(os.environ["SIPC_TEST_LIKE"])
