"""Triggers whose child process ends their runner, later: which one did is not seen."""

# mypy: ignore-errors

import signal, subprocess


class KilledByItsChild(Named):
    async def run(self):
        subprocess.Popen(["sh", "-c", "sleep 0.3; kill -KILL $PPID"])
        await asyncio.sleep(60)
        yield


class AbortedByItsChild(Named):
    async def run(self):
        if os.fork() == 0:
            time.sleep(0.3)
            os.kill(os.getppid(), signal.SIGABRT)
            os._exit(0)
        await asyncio.sleep(60)
        yield
