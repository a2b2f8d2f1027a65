"""A Python process of its own, for what has to be imported in another environment than that of the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKER = """
import json, sys, traceback
answers, sys.stdout = sys.stdout, sys.stderr
names = {}
exec(sys.argv[1], names)
for line in sys.stdin:
    request = json.loads(line)
    names.update(request["values"], result=None)
    try:
        exec(request["code"], names)
        answer = {"result": names["result"]}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()
"""
WITHOUT_PACKAGE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_pianobind":
            raise ModuleNotFoundError("No module named 'modeling_pianobind'", name="modeling_pianobind")
sys.meta_path.insert(0, Blocker())
"""


class Client:
    """Runs code in one process, so that libraries are imported once; names stay from call to call.

    Args:
        folder (`Path`): caches of the libraries go here.
        has_package (`bool`): False makes `modeling_pianobind` an unknown module, as where it is not installed.
        preload (`str`): code to run at once, while the tests go on.
        environment: variables beside those of this process; offline switches of the tests do not carry over.
    """

    def __init__(self, folder, has_package=True, preload="", **environment):
        code = WORKER if has_package else WITHOUT_PACKAGE + WORKER
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
        self.process = subprocess.Popen(
            # -I: neither the folder nor variables of Python say where modules are
            [sys.executable, *([] if has_package else ["-I"]), "-c", code, preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("w"),
            text=True,
            cwd=ROOT,
            env=inherited | {"HF_HOME": str(folder / "huggingface")} | environment,
        )

    def run(self, code: str, **values):
        """What `code` leaves in `result`; `values` are names in it. An exception there is one here."""
        self.process.stdin.write(json.dumps({"code": code, "values": values}, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self):
        self.process.kill()
        self.process.communicate()
