"""A network cable that can be pulled: what passes through it is delayed, lost, held up or cut, as told and while it runs. No root needed.

    with Cable(port) as cable:              # a client connects to cable.port on 127.0.0.1 and reaches 127.0.0.1:port
        cable.state = "pulled"              # nothing passes and nobody is told, as with a real cable
        cable.delay_s, cable.jitter_s = 0.1, 0.05

    with WebRTCCable(source) as cable:      # a publisher calls cable.offer instead of source.offer

TCP keeps its order and loses nothing but time: what is written into a pulled cable comes out when it is plugged in again, unless the connection was
given up by then. UDP is delayed packet by packet, so jitter puts packets out of order, and `loss` of them never arrive. Knows no camera.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading

CHUNK_BYTES = 16384
LOOK_S = 0.02


class Carrier:
    """`state`: plugged, pulled, or cut (TCP: connections are reset and new ones closed at once, as by a host whose service is down)."""

    def __init__(self, seed: int = 0):
        self.state, self.delay_s, self.jitter_s, self.loss = "plugged", 0.0, 0.0, 0.0
        self.passed = self.lost = 0  # chunks or packets
        self._random, self._loop = random.Random(seed), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="cable")

    def late_s(self) -> float:
        return max(self.delay_s + self._random.uniform(-1, 1) * self.jitter_s, 0.0)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def __exit__(self, *_) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Cable(Carrier):
    """To a TCP port, which may be changed: what is connected stays where it is."""

    def __init__(self, target: int, seed: int = 0):
        super().__init__(seed)
        self.target = target

    def __enter__(self) -> Cable:
        self._thread.start()
        self._server = self.run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _end(self) -> None:
        self._server.close()
        await super()._end()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self.state == "pulled":
                await asyncio.sleep(LOOK_S)
            if self.state == "cut":
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        finally:
            if self.state == "cut":
                writer.transport.abort()
        ways = {asyncio.ensure_future(self._pass(reader, far_writer)), asyncio.ensure_future(self._pass(far_reader, writer))}
        watch = asyncio.ensure_future(self._until_cut())
        try:
            with contextlib.suppress(asyncio.CancelledError):  # asyncio's own streams complain of a connection that is cancelled
                await asyncio.wait({*ways, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*ways, watch):
                task.cancel()
            for end in (writer, far_writer):
                end.transport.abort()

    async def _until_cut(self) -> None:
        while self.state != "cut":
            await asyncio.sleep(LOOK_S)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way. As much waits here as a queue of the network would hold; then the sender feels it."""
        waiting: asyncio.Queue = asyncio.Queue(maxsize=256)
        filling = asyncio.ensure_future(self._fill(reader, waiting))
        now = asyncio.get_running_loop().time
        due = 0.0
        with contextlib.suppress(OSError):
            try:
                while (item := await waiting.get()) is not None:
                    due = max(due, item[0])  # no chunk overtakes another
                    await asyncio.sleep(max(due - now(), 0.0))
                    while self.state == "pulled":
                        await asyncio.sleep(LOOK_S)
                    writer.write(item[1])
                    await writer.drain()
                    self.passed += 1
            finally:
                filling.cancel()

    async def _fill(self, reader: asyncio.StreamReader, waiting: asyncio.Queue) -> None:
        now = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await waiting.put((now() + self.late_s(), data))
        await waiting.put(None)


class WebRTCCable(Carrier):
    """Between a publisher and a source, for all packets of both directions. The two learn no address of each other's, only the cable's."""

    def __init__(self, source, seed: int = 0):
        super().__init__(seed)
        self.source = source
        self._near: asyncio.DatagramTransport | None = None

    def __enter__(self) -> WebRTCCable:
        self._thread.start()
        return self

    def offer(self, offer: str) -> tuple[str, str]:
        """As the source's own, with the cable in between."""
        without = re.sub(r"(?m)^a=(candidate:.*|end-of-candidates)\r?\n", "", offer)
        resource, answer = self.source.offer(without)
        host, port = re.search(r"(?m)^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", answer).groups()
        near = self.run(self._lay((host, int(port))))
        first = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {near} typ host\r\n"
        return resource, re.sub(r"(?m)(^a=candidate:.*\r?\n)+", first, answer)

    async def _lay(self, far: tuple[str, int]) -> int:
        if self._near:
            self._near.close()
            self._far.close()
        near, away = _End(), _End()
        self._near, _ = await self._loop.create_datagram_endpoint(lambda: near, ("127.0.0.1", 0))
        self._far, _ = await self._loop.create_datagram_endpoint(lambda: away, remote_addr=far)
        publisher: list = []

        def there(data: bytes, sender) -> None:
            publisher[:] = [sender]
            self._send(data, self._far, None)

        near.receive = there
        away.receive = lambda data, _: self._send(data, self._near, publisher[0]) if publisher else None
        return self._near.get_extra_info("sockname")[1]

    def _send(self, data: bytes, to: asyncio.DatagramTransport, address) -> None:
        if self.state != "plugged" or self._random.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        late_s = self.late_s()
        if late_s:
            self._loop.call_later(late_s, lambda: to.is_closing() or to.sendto(data, address))
        else:
            to.sendto(data, address)

    async def _end(self) -> None:
        for transport in (self._near, self._far) if self._near else ():
            transport.close()
        await super()._end()


class _End(asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address) -> None:
        self.receive(data, address)

    def error_received(self, error: OSError) -> None:
        pass  # the other end's port is closed: it will be told by its silence
