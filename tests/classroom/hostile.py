"""Notebooks that attack the grader: one cell of code each, put before an untouched notebook.

None may gain a point, stop the run, or leave anything behind. A cell that looks for secrets prints
what it found, after the word FOUND.
"""

CELLS = {
    "loops": "while True: pass",
    "loops and catches everything": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "sleeps without signals": """
import signal, time
signal.signal(signal.SIGALRM, signal.SIG_IGN)
time.sleep(10_000)
""",
    "forks without end": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "leaves a process behind": """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4321)"], start_new_session=True)
""",
    "exits": "import os; os._exit(0)",
    "raises SystemExit": "import sys; sys.exit(0)",
    "exits in every function": """
import os, sys
def sgd_step(*_, **__): os._exit(0)
second_moment = risk_curve = floor = first_step = sgd_step
class Stop:
    def __setattr__(self, *_): os._exit(0)
best_steps = Stop()
get_ipython().events.register("pre_run_cell", lambda *_: os._exit(0))
""",
    "kills its parents": """
import os, signal
for pid in (1, os.getppid(), -1, 0):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
""",
    "deletes files": """
import shutil
for folder in ("/", "/work", "/home", "/root", "/usr", "/grader"):
    shutil.rmtree(folder, ignore_errors=True)
""",
    "overwrites the checker": """
import sys, batchscaling.classroom
for module in [m for n, m in sys.modules.items() if n.startswith("batchscaling.classroom")]:
    for name in ("expect", "within", "numbers", "drawn", "plotted", "draws", "close", "finite"):
        setattr(module, name, lambda *_, **__: True)
import builtins
builtins.AssertionError = ValueError
""",
    "overwrites numpy": """
import numpy as np
np.allclose = np.isclose = np.array_equal = np.all = lambda *_, **__: True
np.asarray = np.array = lambda *_, **__: 0
np.testing.assert_allclose = lambda *_, **__: None
""",
    "overwrites what answers": """
import sys, json
main = sys.modules["__main__"]
wire = sys.modules["wire"]
good = {"score": 20, "points": 20, "message": "", "value": True, "passed": True}
main.answer = lambda *_: good
wire.encode = main.plain = main.run = lambda *_, **__: good
json.dumps = lambda *_, **__: '{"value": true, "score": 20}'
""",
    "answers before it is asked": """
import os
for fd in range(3, 50):
    try:
        for _ in range(2000):
            os.write(fd, b'{"value": true, "score": 20, "error": null}\\n')
    except OSError: pass
""",
    "sends what is no answer": """
import os
for fd in range(3, 50):
    try: os.write(fd, b'[[[[' * 5000 + b'\\n\\xff\\xfe\\n' + b'9' * 5000 + b'\\n')
    except OSError: pass
""",
    "prints fake scores": """
import os, sys
for _ in range(100):
    print('{"score": 20}', "q1: 2 of 2 tests passed")
os.write(1, b'{"questions": [{"name": "q1", "score": 3}]}')
os.write(2, b'{"score": 20}')
""",
    "reads the stack": """
import gc, inspect
words = ("expect", "mistakes", "test_q")
frames = [f.frame.f_code.co_filename for f in inspect.stack()]
found = [str(o)[:80] for o in gc.get_objects() if type(o) is dict and "test_q1_noise" in o]
found += [f for f in frames if "grading" in f]
print("FOUND", found)
""",
    "reads /proc": """
import glob
found = []
for path in glob.glob("/proc/[0-9]*/*"):
    try: data = open(path, "rb").read(1_000_000)
    except OSError: continue
    if b"pytest" in data: found.append(path)  # the grader's process, where the tests run
print("FOUND", found)
""",
    "reads the disk": """
import os
found = []
for place in ("/work", "/root", "/home", "/tmp", "/grader", os.getcwd(), "/proc/1/root/work"):
    for folder, folders, files in os.walk(place):
        folders[:] = [f for f in folders if f not in ("site-packages", "versions", "proc")]
        for file in files:
            if file.endswith((".ipynb", "q1.py", "assignment.json", "grades.csv")):
                found.append(os.path.join(folder, file))
print("FOUND", found)
""",
    "opens a connection": """
import socket
found = []
for address in (("1.1.1.1", 80), ("8.8.8.8", 53), ("127.0.0.1", 8888)):
    try:
        socket.create_connection(address, timeout=1)
        found.append(address)
    except OSError: pass
print("FOUND", found)
""",
    "writes gigabytes": """
found = []
for place in ("/tmp/big", "/home/big", "/dev/shm/big", "big", "/grader/big", "/usr/big"):
    written = 0
    try:
        with open(place, "wb", buffering=0) as file:
            for _ in range(200):
                written += file.write(bytes(2**24))
    except OSError: pass
    if written > 2**27: found.append(place)
print("FOUND", found)
""",
    "takes memory": "hoard = [b'x' * 2**26 for _ in range(1000)]",
    "prints gigabytes": """
import os
for _ in range(300):
    print("x" * 2**20)
    os.write(1, b"y" * 2**20)
""",
    "returns giants": """
import numpy as np
def sgd_step(*_, **__): return np.zeros(2**27)
def second_moment(*_, **__):
    deep = []
    for _ in range(100_000): deep = [deep]
    return deep
def risk_curve(*_, **__): return 10**100_000
def floor(*_, **__): return {"a": [float("nan")] * 10, (1, 2): "\\ud800"}
def first_step(*_, **__): return iter(int, 1)
""",
    "returns flatterers": """
import numpy as np
class Flatterer(float):
    __array_priority__ = 1e9
    def __eq__(self, other): return True
    __le__ = __lt__ = __ge__ = __gt__ = __eq__
    __hash__ = float.__hash__
    def __bool__(self): return True
    def __array_ufunc__(self, *_, **__): return True
    def __array_function__(self, *_, **__): return True
def sgd_step(*_, **__): return Flatterer(float("nan"))
second_moment = risk_curve = floor = first_step = sgd_step
best_steps, axes = Flatterer(1), Flatterer(1)
""",
    "returns emptiness": """
import numpy as np
def sgd_step(*_, **__): return np.zeros((0, 2))
second_moment = risk_curve = floor = first_step = sgd_step
best_steps = np.zeros(0)
axes = {"lines": [], "xscale": "log", "yscale": "log", "xlabel": "x", "ylabel": "y"}
""",
    "is a broken program": "def f(:\n  )",
    "runs commands": "!sleep 1000\n%pip install torch\nget_ipython().system('sleep 1000')",
    "has magic cells": "%%bash\nsleep 1000",
    "writes HTML": """
raise ValueError("<script>alert(1)</script>")
""",
}
QUICK = (
    "loops and catches everything",
    "forks without end",
    "exits in every function",
    "overwrites what answers",
    "reads the disk",
    "returns flatterers",
)
