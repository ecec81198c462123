"""Triggers that change their process, or make others."""

# mypy: ignore-errors

import multiprocessing, signal, subprocess


class ForksAndStays(Named):
    async def run(self):
        if os.fork() == 0:
            time.sleep(3600)
        yield TriggerEvent("well")


class ForksAndFires(Named):
    """Both processes go on: only one of them may speak for the trigger."""

    async def run(self):
        pid = os.fork()
        yield TriggerEvent("parent" if pid else "child")


class ForksMany(Named):
    async def run(self):
        pids = []
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        yield TriggerEvent("well")


class ForksAway(Named):
    """A daemon in a session of its own, which holds all that its parent had open."""

    async def run(self):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(20)
            os._exit(0)
        os.wait()
        yield TriggerEvent("well")


class UsesMultiprocessing(Named):
    async def run(self):
        process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
        process.start()
        while process.is_alive():
            await asyncio.sleep(0.05)
        yield TriggerEvent(process.exitcode)


class StartsASession(Named):
    async def run(self):
        os.setsid()
        yield


class KillsItsGroupSoftly(Named):
    async def run(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.killpg(0, number)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class IgnoresSignals(Named):
    async def run(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        await asyncio.sleep(1.5)
        yield TriggerEvent("well")


class SetsAnAlarm(Named):
    async def run(self):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        await asyncio.sleep(0.5)
        yield TriggerEvent("well")


class SignalsItself(Named):
    async def run(self):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGVTALRM):
            os.kill(os.getpid(), number)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ChangesFolder(Named):
    async def run(self):
        os.chdir("/proc/self/task")
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ChangesUmask(Named):
    async def run(self):
        os.umask(0o777)
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class ClearsEnviron(Named):
    async def run(self):
        os.environ.clear()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class IsNice(Named):
    async def run(self):
        os.nice(5)
        yield TriggerEvent("well")


class LeaksThreads(Named):
    async def run(self):
        for _ in range(50):
            threading.Thread(target=time.sleep, args=(3600,)).start()
        yield TriggerEvent("well")


class ExitsInThread(Named):
    async def run(self):
        threading.Thread(target=sys.exit, args=(3,)).start()
        await asyncio.sleep(0.1)
        yield TriggerEvent("well")


class RaisesInThread(Named):
    async def run(self):
        await asyncio.to_thread(sys.exit, 3)
        yield


class LeaksFiles(Named):
    async def run(self):
        self.files = [os.open("/dev/null", os.O_RDONLY) for _ in range(500)]
        yield TriggerEvent("well")


class WritesToAllPipes(Named):
    """As if it took numbers of descriptors for its own that were closed and given anew."""

    async def run(self):
        for number in range(3, 100):
            with contextlib.suppress(OSError):
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    os.write(number, b"a line of text\n")
        yield TriggerEvent("well")


class ReadsStdin(Named):
    async def run(self):
        input()
        yield
