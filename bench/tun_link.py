"""A network link of one's own, for whole packets: two network namespaces, joined by this process, which delays and loses what it carries.

    with Link() as link:                    # as root, on Linux with /dev/net/tun and `ip`
        link.popen(0, command); link.popen(1, command)      # at link.addresses[0] and [1]
        link.delay_s, link.jitter_s, link.loss, link.state = 0.1, 0.05, 0.02, "pulled"

For kernels without netem, and for protocols that no proxy can stand in for (RTSP over UDP). Packets keep their order, as on one path of a network.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import struct
import subprocess
import threading

from cables import Carrier

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
MAKE_TUN, TUN, NO_HEADER = 0x400454CA, 0x0001, 0x1000  # of linux/if_tun.h
PACKET_BYTES = 2048


class Link(Carrier):
    addresses = ("10.93.7.1", "10.93.7.2")

    def __enter__(self) -> Link:
        if os.geteuid() or not os.path.exists("/dev/net/tun"):
            raise SystemExit("This needs root and /dev/net/tun: run it as root on Linux, or choose `cables`, which needs neither.")
        self.names = [f"svlm-{os.getpid()}-{end}" for end in "ab"]
        self.ends = [self._end_of(k) for k in (0, 1)]
        self._due = [0.0, 0.0]  # a packet does not overtake another of its way
        self._thread.start()
        self._loop.call_soon_threadsafe(lambda: [self._loop.add_reader(end, self._carry, k) for k, end in enumerate(self.ends)])
        return self

    def _end_of(self, k: int) -> int:
        subprocess.run(["ip", "netns", "add", self.names[k]], check=True)
        made: list[int] = []
        thread = threading.Thread(target=lambda: made.append(_tun_in(f"/run/netns/{self.names[k]}")))  # a thread may be in another namespace
        thread.start()
        thread.join()
        for command in (f"addr add {self.addresses[k]} peer {self.addresses[1 - k]} dev tun0", "link set tun0 up", "link set lo up"):
            subprocess.run(["ip", "-n", self.names[k], *command.split()], check=True)
        return made[0]

    def popen(self, k: int, command: list[str], **how) -> subprocess.Popen:
        """Run a command at end `k`."""
        return subprocess.Popen(["ip", "netns", "exec", self.names[k], *command], **how)

    def _carry(self, k: int) -> None:
        """One packet from end `k` to the other."""
        packet = os.read(self.ends[k], PACKET_BYTES)
        if self.state != "plugged" or self._random.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        self._due[k] = max(self._due[k], self._loop.time() + self.late_s())
        self._loop.call_at(self._due[k], os.write, self.ends[1 - k], packet)

    async def _end(self) -> None:
        for end in self.ends:
            self._loop.remove_reader(end)
        await asyncio.sleep(0)

    def __exit__(self, *raised) -> None:
        super().__exit__(*raised)
        for end, name in zip(self.ends, self.names, strict=True):
            os.close(end)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _tun_in(namespace: str) -> int:
    """A file that reads and writes the packets of a new device `tun0` in that namespace. Moves the calling thread there for good."""
    with open(namespace) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, MAKE_TUN, struct.pack("16sH", b"tun0", TUN | NO_HEADER))
    return device
